-- Percentiles, found exactly or by buckets, in one row or one a day, hour or agent.
SELECT {shown}, measured AS pings, p50_us / 1000 AS p50_ms, p95_us / 1000 AS p95_ms, p99_us / 1000 AS p99_ms
FROM (
{found}
) AS found {joined}
ORDER BY ALL
