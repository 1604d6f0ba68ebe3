-- The newest $count outcomes of each of some agents, newest first.
SELECT
    p.agent, p.ping_seq, p.pinged_us, p.outcome::VARCHAR AS outcome, p.reason,
    p.verdict::VARCHAR AS verdict, p.uptime_percent,
    p.up_ms, p.degraded_ms, p.down_ms, p.unknown_ms, p.excused_ms, p.window_ms,
    p.consecutive_poor, p.interval_seconds, p.next_us, p.response_us, p.late_us, p.gpu_set,
    p.remarks
FROM {pings} AS p
WHERE p.pinged_us >= $since_us AND p.agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
QUALIFY row_number() OVER (PARTITION BY p.agent ORDER BY p.pinged_us DESC, p.ping_seq DESC) <= $count
ORDER BY p.agent, p.pinged_us DESC, p.ping_seq DESC;
