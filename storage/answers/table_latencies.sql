-- Percentiles, found exactly or by buckets, in one row or one a day, hour or agent.
SELECT
    {shown}, measured AS pings,
    round(p50_us / 1000, 3) AS p50_ms,
    round(p95_us / 1000, 3) AS p95_ms,
    round(p99_us / 1000, 3) AS p99_ms
FROM (
{found}
) AS found {joined}
ORDER BY ALL
