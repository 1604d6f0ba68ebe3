-- When the oldest of the newest outcomes was, and how many there are, at most $limit.
-- Sorting one column is cheap, sorting twenty is not (recent_pings.sql).
SELECT min(pinged_us) AS since_us, count(*) AS outcomes
FROM (
    SELECT pinged_us FROM {pings} WHERE pinged_us >= $since_us
    ORDER BY pinged_us DESC LIMIT $limit
);
