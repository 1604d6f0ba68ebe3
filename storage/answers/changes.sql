-- The newest outcomes that differ in kind from the one before of the same agent. A first good
-- outcome after the first ping is no news; an agent's very first one is, and has none before.
SELECT agent, ping_seq, pinged_us, previous
FROM (
    SELECT
        agent, ping_seq, pinged_us, kind,
        lag(kind) OVER (PARTITION BY agent ORDER BY pinged_us, ping_seq) AS previous
    FROM (
        SELECT
            agent, ping_seq, pinged_us,
            CASE WHEN outcome = 'missed' THEN 'missed' ELSE verdict::VARCHAR END AS kind
        FROM {pings}
        WHERE pinged_us >= $since_us AND verdict <> 'excused'
    )
)
WHERE (kind <> previous AND NOT (kind = 'good' AND previous = 'first'))
    OR (kind = 'first' AND previous IS NULL AND ping_seq = 1)
ORDER BY pinged_us DESC
LIMIT $limit;
