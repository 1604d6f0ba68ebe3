    -- for periods with few enough pings to be sorted
    SELECT key, measured, p[1] AS p50_us, p[2] AS p95_us, p[3] AS p99_us
    FROM (
        SELECT {key} AS key, count(*) AS measured, quantile_cont({measure}, [0.5, 0.95, 0.99]) AS p
        FROM {pings} AS p
        WHERE {chosen} AND {measure} IS NOT NULL
            AND pinged_us >= $since_us AND pinged_us < $until_us
        GROUP BY key
    )
