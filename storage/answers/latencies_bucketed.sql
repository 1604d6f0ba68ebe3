    -- from buckets 2 % wide, so within 1 %; those of whole hours may be summed already
    SELECT
        key, max(below) AS measured,
        min(pow(1.02, bucket)) FILTER (below >= 0.5 * total) AS p50_us,
        min(pow(1.02, bucket)) FILTER (below >= 0.95 * total) AS p95_us,
        min(pow(1.02, bucket)) FILTER (below >= 0.99 * total) AS p99_us
    FROM (
        SELECT
            key, bucket, sum(pings) OVER (PARTITION BY key ORDER BY bucket)::BIGINT AS below,
            sum(pings) OVER (PARTITION BY key)::BIGINT AS total
        FROM (
            SELECT key, bucket, sum(pings)::BIGINT AS pings
            FROM (
                {sealed}
                SELECT
                    {key} AS key,
                    round(ln(greatest({measure}, 1)) / ln(1.02))::INTEGER AS bucket,
                    count(*) AS pings
                FROM {pings} AS p
                WHERE {chosen} AND {measure} IS NOT NULL AND (
                    (pinged_us >= $since_us AND pinged_us < $head_until_us)
                    OR (pinged_us >= $tail_since_us AND pinged_us < $until_us)
                )
                GROUP BY key, bucket
            )
            GROUP BY key, bucket
        )
    )
    GROUP BY key
