-- The fleet's response times and lateness in buckets 2 % wide, ascending: sealed hours from the
-- rollup, the edges from the rows.
WITH edges AS (
    SELECT response_us, late_us FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $head_until_us
    UNION ALL
    SELECT response_us, late_us FROM {pings} WHERE pinged_us >= $tail_since_us
)
SELECT measure, bucket, sum(pings)::BIGINT AS pings
FROM (
    SELECT measure, bucket, pings FROM fleet_latencies WHERE hour >= $first AND hour < $end
    UNION ALL
    SELECT 'response', round(ln(greatest(response_us, 1)) / ln(1.02))::INTEGER, count(*)
    FROM edges WHERE response_us IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT 'late', round(ln(greatest(late_us, 1)) / ln(1.02))::INTEGER, count(*)
    FROM edges WHERE late_us IS NOT NULL GROUP BY ALL
)
GROUP BY measure, bucket
ORDER BY measure, bucket;
