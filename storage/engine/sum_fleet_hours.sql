INSERT INTO fleet_hours BY NAME
SELECT
    floor(pinged_us / 3600000000)::INTEGER AS hour,
    count(*) AS pings,
    count(*) FILTER (outcome = 'answered') AS answered,
    count(*) FILTER (outcome = 'missed') AS missed,
    count(*) FILTER (outcome = 'excused') AS excused,
    count(*) FILTER (verdict = 'first') AS first,
    count(*) FILTER (verdict = 'good') AS good,
    count(*) FILTER (verdict = 'poor') AS poor,
    coalesce(sum(up_ms), 0)::BIGINT AS up_ms,
    coalesce(sum(degraded_ms), 0)::BIGINT AS degraded_ms,
    coalesce(sum(down_ms), 0)::BIGINT AS down_ms,
    coalesce(sum(unknown_ms), 0)::BIGINT AS unknown_ms,
    coalesce(sum(excused_ms), 0)::BIGINT AS excused_ms
FROM {accountable_pings}
WHERE pinged_us >= $since_us AND pinged_us < $until_us
GROUP BY ALL;

-- buckets 2 % wide: bucket b holds 1.02^(b - 1/2) .. 1.02^(b + 1/2) microseconds
INSERT INTO fleet_latencies BY NAME
SELECT hour, measure, bucket, count(*) AS pings
FROM (
    SELECT
        floor(pinged_us / 3600000000)::INTEGER AS hour,
        unnest(['response', 'late']) AS measure,
        unnest([round(ln(greatest(response_us, 1)) / ln(1.02)), round(ln(greatest(late_us, 1)) / ln(1.02))])::INTEGER AS bucket
    FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $until_us
)
WHERE bucket IS NOT NULL
GROUP BY ALL
ORDER BY hour, measure, bucket;
