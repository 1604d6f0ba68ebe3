-- The newest trouble of each GPU (or host), state and reason, that began or ended in a period, and
-- how many such troubles were reported in it.
-- What makes several reports one incident is as in table_incidents.sql.
SELECT *
FROM (
    SELECT
        agent, gpu, state, reason,
        count(*) AS times,
        max(since_us) AS since_us,
        nullif(arg_max(coalesce(until_us, -1), since_us), -1) AS until_us,
        max(told_us) AS told_us
    FROM (
        SELECT
            agent, gpu, state, reason,
            arg_min(since_us, pinged_us) AS since_us,
            nullif(arg_max(coalesce(until_us, -1), pinged_us), -1) AS until_us,
            max(pinged_us) AS told_us
        FROM (
            SELECT *, sum(begins) OVER (
                PARTITION BY agent, gpu, state, reason ORDER BY since_us, pinged_us
            ) AS number
            FROM (
                SELECT *, coalesce(
                    since_us > max(
                        coalesce(until_us - 1, greatest(pinged_us, since_us) + 100000)
                    ) OVER (
                        PARTITION BY agent, gpu, state, reason ORDER BY since_us, pinged_us
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ),
                    true
                )::INTEGER AS begins
                FROM {incidents}
                WHERE pinged_us >= $since_us
            )
        )
        GROUP BY agent, gpu, state, reason, number
    )
    GROUP BY agent, gpu, state, reason
)
WHERE greatest(since_us, coalesce(until_us, 0)) >= $since_us
ORDER BY greatest(since_us, coalesce(until_us, 0)) DESC
LIMIT $limit;
