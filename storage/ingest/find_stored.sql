-- Which of these outcomes are stored already. The outcome itself is compared, not its number in a stream.
SELECT DISTINCT p.agent, p.ping_seq, p.pinged_us
FROM {pings} AS p
SEMI JOIN (
    SELECT unnest(from_json($rows, '[{"agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT"}]'), recursive := true)
) AS asked USING (agent, ping_seq, pinged_us)
WHERE p.pinged_us BETWEEN $since_us AND $until_us;
