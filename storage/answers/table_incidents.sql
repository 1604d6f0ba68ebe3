-- One row an incident.
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
    {> merged_incidents}
) AS i
JOIN agents AS a USING (agent)
WHERE i.until_us IS NULL OR i.until_us > $since_us
ORDER BY a.agent_id, i.since_us, i.gpu NULLS FIRST, i.state, i.reason
