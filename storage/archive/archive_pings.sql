-- The metadata of the file tells how many rows the files of the other tables have.
COPY (
    SELECT a.agent_id, s.gpus, p.* EXCLUDE (agent, gpu_set)
    FROM {pings} AS p
    JOIN agents AS a USING (agent)
    LEFT JOIN gpu_sets AS s USING (gpu_set)
    WHERE p.pinged_us >= {since_us} AND p.pinged_us < {until_us}
    ORDER BY a.agent_id, p.pinged_us
) TO {file} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {gpuping_beside: '{beside}'});
