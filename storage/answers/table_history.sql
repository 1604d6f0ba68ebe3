-- One row an outcome, after a cursor (storage/answers/cursor.py). {chosen}: one agent, or all.
-- Parquet also has the reports that are kept, for `gpuping verify`: table_history_reports.sql.
SELECT
    a.agent_id,
    p.ping_seq,
    make_timestamp(p.pinged_us)::TIMESTAMPTZ AS pinged_at,
    p.outcome,
    p.verdict,
    p.reason,
    p.uptime_percent,
    p.up_ms / 1000 AS up_seconds,
    p.degraded_ms / 1000 AS degraded_seconds,
    p.down_ms / 1000 AS down_seconds,
    p.unknown_ms / 1000 AS unknown_seconds,
    p.excused_ms / 1000 AS excused_seconds,
    coalesce(
        p.window_ms, p.up_ms + p.degraded_ms + p.down_ms + p.unknown_ms + p.excused_ms
    ) / 1000 AS window_seconds,
    p.consecutive_poor AS consecutive_poor_uptime,
    p.interval_seconds / 60 AS interval_minutes,
    make_timestamp(p.pinged_us + p.next_us)::TIMESTAMPTZ AS next_ping_at,
    p.response_us / 1000 AS response_ms,
    p.late_us / 1000 AS late_ms,
    array_to_string(from_json(p.remarks, '["VARCHAR"]'), ' ') AS remarks{reports}
FROM {pings} AS p
JOIN agents AS a USING (agent)
{joined}
WHERE {chosen} AND p.pinged_us >= $since_us AND p.pinged_us < $until_us
    AND p.pinged_us <= $before_us AND (p.pinged_us < $before_us OR p.ping_seq < $before_seq)
{order}
