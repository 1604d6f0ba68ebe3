-- When the n-th newest outcome was, and how many there are: sorting one column is cheap, sorting twenty is not.
SELECT min(pinged_us) AS since_us, count(*) AS outcomes
FROM (SELECT pinged_us FROM {pings} WHERE pinged_us >= $since_us ORDER BY pinged_us DESC LIMIT $limit);
