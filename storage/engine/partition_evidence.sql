-- Signed reports in files of the archive. Each column by name: what else a file has goes nowhere.
SELECT agent_id, ping_seq, pinged_us, signature, payload
FROM read_parquet({files}, hive_partitioning = false)
