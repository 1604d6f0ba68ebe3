SELECT
    count(*),
    count(*) FILTER (outcome = 'answered'),
    count(*) FILTER (outcome = 'missed'),
    count(*) FILTER (outcome = 'excused'),
    count(*) FILTER (verdict = 'first'),
    count(*) FILTER (verdict = 'good'),
    count(*) FILTER (verdict = 'poor'),
    coalesce(sum(up_ms), 0)::BIGINT,
    coalesce(sum(degraded_ms), 0)::BIGINT,
    coalesce(sum(down_ms), 0)::BIGINT,
    coalesce(sum(unknown_ms), 0)::BIGINT,
    coalesce(sum(excused_ms), 0)::BIGINT,
    min(ping_seq) FILTER (pinged_us >= $began_us),
    max(ping_seq) FILTER (pinged_us >= $began_us),
    quantile_cont(response_us, 0.5),
    quantile_cont(response_us, 0.95)
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us;
