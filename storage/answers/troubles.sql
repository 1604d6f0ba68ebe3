-- The newest trouble of each GPU (or host), state and reason, that began or ended in a period, and
-- how many such troubles were reported in it.
SELECT *
FROM (
    SELECT
        agent, gpu, state, reason,
        count(*) AS times,
        max(since_us) AS since_us,
        nullif(arg_max(coalesce(until_us, -1), since_us), -1) AS until_us,
        max(told_us) AS told_us
    FROM (
        {> merged_incidents}
    )
    GROUP BY agent, gpu, state, reason
)
WHERE greatest(since_us, coalesce(until_us, 0)) >= $since_us
ORDER BY greatest(since_us, coalesce(until_us, 0)) DESC
LIMIT $limit;
