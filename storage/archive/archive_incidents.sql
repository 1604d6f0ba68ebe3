COPY (
    SELECT a.agent_id, t.* EXCLUDE (agent)
    FROM {incidents} AS t
    JOIN agents AS a USING (agent)
    WHERE t.pinged_us >= {since_us} AND t.pinged_us < {until_us}
    ORDER BY a.agent_id, t.pinged_us
) TO {file} (FORMAT parquet, COMPRESSION zstd);
