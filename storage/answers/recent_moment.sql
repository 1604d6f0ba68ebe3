-- When the n-th newest outcome was: one column is cheap to sort, twenty are not.
SELECT min(pinged_us), count(*)
FROM (SELECT pinged_us FROM {pings} WHERE pinged_us >= $since_us ORDER BY pinged_us DESC LIMIT $limit);
