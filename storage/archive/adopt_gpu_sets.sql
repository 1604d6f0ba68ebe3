INSERT INTO gpu_sets
SELECT (SELECT count(*) FROM gpu_sets) + row_number() OVER (ORDER BY gpus) - 1, gpus
FROM (
    SELECT DISTINCT gpus FROM read_parquet($file, hive_partitioning = false)
    WHERE gpus IS NOT NULL AND gpus NOT IN (SELECT gpus FROM gpu_sets)
);
