-- Where the outcomes of some agents lie, for `storage/statements/gaps.py`. A ping without an answer
-- has an open window; outcomes of schema 2 have labels, which are left out.
SELECT
    agent, ping_seq, pinged_us,
    CASE WHEN until_ms IS NULL AND since_ms IS NOT NULL THEN pinged_us - 1000 * (
        since_ms + coalesce(up_ms + degraded_ms + down_ms + unknown_ms + excused_ms, 0)
    ) END AS begin_us,
    outcome::VARCHAR AS outcome,
    enrolled_us
FROM {pings}
WHERE agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
    AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY agent, pinged_us, ping_seq;
