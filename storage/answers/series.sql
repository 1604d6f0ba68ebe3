-- An agent's outcomes in buckets of $grain_us. The covered time is that of the windows of answered
-- pings; in rows of schema 2 the window's end is a label of the agent's clock.
SELECT
    (pinged_us - $since_us) // $grain_us AS bucket,
    min(pinged_us) AS first_us,
    max(pinged_us) AS last_us,
    min(pinged_us + coalesce(until_ms, 0) * 1000 - window_us) FILTER (up_ms IS NOT NULL)
        AS covered_since_us,
    max(pinged_us + coalesce(until_ms, 0) * 1000) FILTER (up_ms IS NOT NULL) AS covered_until_us,
    count(*) AS pings,
    count(*) FILTER (outcome = 'missed') AS missed,
    count(*) FILTER (verdict = 'excused') AS excused,
    count(*) FILTER (verdict = 'poor') AS poor,
    min(uptime_percent) AS min_uptime_percent,
    coalesce(sum(up_ms), 0)::BIGINT AS up_ms,
    coalesce(sum(degraded_ms), 0)::BIGINT AS degraded_ms,
    coalesce(sum(down_ms), 0)::BIGINT AS down_ms,
    coalesce(sum(unknown_ms), 0)::BIGINT AS unknown_ms,
    coalesce(sum(excused_ms), 0)::BIGINT AS excused_ms,
    quantile_cont(response_us, 0.5) AS response_p50_us,
    quantile_cont(response_us, 0.95) AS response_p95_us
FROM (
    SELECT
        *,
        (up_ms + degraded_ms + down_ms + unknown_ms + excused_ms + coalesce(since_ms, 0)) * 1000
            AS window_us
    FROM {pings}
    WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
)
GROUP BY bucket
ORDER BY bucket;
