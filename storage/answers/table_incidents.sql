-- One row a time that was not up. An incident that goes on is told by every report, and its last telling counts: it is
-- the same one when it began before the report that left it open. Its label of time may differ a little, because the
-- host's clock is corrected while it runs (0.1 s).
SELECT
    a.agent_id,
    i.gpu,
    i.state,
    i.reason,
    make_timestamp(i.since_us)::TIMESTAMPTZ AS since,
    make_timestamp(i.until_us)::TIMESTAMPTZ AS until,
    (i.until_us - i.since_us) / 1000000 AS seconds,
    make_timestamp(i.told_us)::TIMESTAMPTZ AS last_told_at
FROM (
    SELECT
        agent, gpu, state, reason, arg_min(since_us, pinged_us) AS since_us,
        nullif(arg_max(coalesce(until_us, -1), pinged_us), -1) AS until_us, max(pinged_us) AS told_us
    FROM (
        SELECT *, sum(begins) OVER (PARTITION BY agent, gpu, state, reason ORDER BY since_us, pinged_us) AS number
        FROM (
            SELECT *, coalesce(
                since_us > max(coalesce(until_us - 1, greatest(pinged_us, since_us) + 100000)) OVER (
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
) AS i
JOIN agents AS a USING (agent)
WHERE i.until_us IS NULL OR i.until_us > $since_us
ORDER BY a.agent_id, i.since_us, i.gpu NULLS FIRST, i.state, i.reason
