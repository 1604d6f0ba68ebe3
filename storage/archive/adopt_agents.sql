INSERT INTO agents
SELECT (SELECT count(*) FROM agents) + row_number() OVER (ORDER BY agent_id) - 1, agent_id
FROM (SELECT DISTINCT agent_id FROM read_parquet($file, hive_partitioning = false) WHERE agent_id NOT IN (SELECT agent_id FROM agents));
