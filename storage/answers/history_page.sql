-- One page of an agent's outcomes, newest first, after a cursor (storage/answers/cursor.py).
SELECT
    p.agent, p.ping_seq, p.pinged_us, p.outcome::VARCHAR AS outcome, p.reason,
    p.verdict::VARCHAR AS verdict, p.uptime_percent,
    p.up_ms, p.degraded_ms, p.down_ms, p.unknown_ms, p.excused_ms, p.window_ms,
    p.consecutive_poor, p.interval_seconds, p.next_us, p.response_us, p.late_us, p.gpu_set,
    p.remarks
FROM {pings} AS p
WHERE p.agent = $agent AND p.pinged_us >= $since_us
    AND p.pinged_us <= $before_us AND (p.pinged_us < $before_us OR p.ping_seq < $before_seq)
ORDER BY p.pinged_us DESC, p.ping_seq DESC
LIMIT $limit;
