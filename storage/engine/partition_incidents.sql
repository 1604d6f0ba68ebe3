-- Incidents in files of the archive. Each column by name: what else a file has goes nowhere.
SELECT agent_id, ping_seq, pinged_us, gpu, state, reason, since_us, until_us
FROM read_parquet({files}, hive_partitioning = false)
