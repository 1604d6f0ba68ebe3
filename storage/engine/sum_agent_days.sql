INSERT INTO agent_days BY NAME
SELECT
    agent,
    floor(pinged_us / 86400000000)::INTEGER AS day, -- `//` rounds towards 1970
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
    min(ping_seq) AS first_seq,
    max(ping_seq) AS last_seq
FROM {accountable_pings}
WHERE pinged_us >= $since_us AND pinged_us < $until_us
GROUP BY ALL
ORDER BY day, agent;
