-- GPUs of reports in files of the archive. Each column by name: what else a file has goes nowhere.
SELECT
    agent_id, ping_seq, pinged_us, place, uuid, gpu_index, name, state, reasons, uptime_percent,
    up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
FROM read_parquet({files}, hive_partitioning = false)
