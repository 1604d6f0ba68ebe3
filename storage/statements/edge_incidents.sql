-- The incidents of some outcomes.
SELECT agent, ping_seq, pinged_us, gpu, state, reason, since_us, until_us
FROM {incidents}
SEMI JOIN (
    SELECT unnest(from_json($rows, '[{"agent": "INTEGER", "pinged_us": "BIGINT"}]'), recursive := true)
) AS asked USING (agent, pinged_us)
WHERE pinged_us >= $since_us AND pinged_us < $awaited_us
ORDER BY agent, pinged_us, since_us;
