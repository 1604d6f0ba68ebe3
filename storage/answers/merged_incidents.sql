-- One row an incident. Every report repeats an incident that goes on, and the last report decides.
-- An incident is the one of an earlier report if it began before that report ended, within 0.1 s,
-- because a host's clock is corrected while it runs.
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
        FROM {incidents} AS p
        WHERE {chosen} AND pinged_us >= $since_us AND since_us < $until_us
    )
)
GROUP BY agent, gpu, state, reason, number
