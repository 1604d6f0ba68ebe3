SELECT
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
    coalesce(sum(excused_ms), 0)::BIGINT AS excused_ms,
    min(ping_seq) FILTER (pinged_us >= $began_us) AS first_seq,
    max(ping_seq) FILTER (pinged_us >= $began_us) AS last_seq,
    quantile_cont(response_us, 0.5) AS response_p50_us,
    quantile_cont(response_us, 0.95) AS response_p95_us
FROM {accountable_pings}
WHERE agent = $agent AND pinged_us >= $since_us;
