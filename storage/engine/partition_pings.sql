-- Outcomes in files of the archive. Each column by name: what else a file has goes nowhere.
SELECT
    agent_id, gpus, ping_seq, pinged_us, outcome, verdict, reason, uptime_percent,
    up_ms, degraded_ms, down_ms, unknown_ms, excused_ms, window_ms, until_ms, since_ms,
    consecutive_poor, interval_seconds, next_us, response_us, late_us
FROM read_parquet({files}, hive_partitioning = false)
