-- One row a time that was not up. An incident that goes on is told by every report: its last telling counts.
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
    SELECT agent, gpu, state, reason, since_us, arg_max(until_us, pinged_us) AS until_us, max(pinged_us) AS told_us
    FROM {incidents} AS p
    WHERE {chosen} AND pinged_us >= $since_us AND since_us < $until_us
    GROUP BY agent, gpu, state, reason, since_us
) AS i
JOIN agents AS a USING (agent)
WHERE i.until_us IS NULL OR i.until_us > $since_us
ORDER BY a.agent_id, i.since_us, i.gpu NULLS FIRST, i.state, i.reason
