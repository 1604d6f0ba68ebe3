-- One row an agent as its newest outcome in the period left it, with its uptime over the period.
-- The worst come first.
SELECT
    a.agent_id,
    make_timestamp(last_us)::TIMESTAMPTZ AS last_ping_at,
    newest.outcome,
    newest.verdict,
    newest.reason,
    newest.uptime_percent,
    newest.consecutive_poor AS consecutive_poor_uptime,
    newest.interval_seconds / 60 AS interval_minutes,
    make_timestamp(last_us + newest.next_us)::TIMESTAMPTZ AS next_ping_at,
    newest.response_us / 1000 AS response_ms,
    newest.late_us / 1000 AS late_ms,
    pings,
    missed,
    uptime_percent(good_ms, judged_ms + coalesce(gone.unreported_ms, 0)) AS period_uptime_percent
FROM (
    SELECT
        agent,
        max(pinged_us) AS last_us,
        count(*) AS pings,
        count(*) FILTER (outcome = 'missed') AS missed,
        coalesce(sum(up_ms + degraded_ms), 0)::BIGINT AS good_ms,
        coalesce(sum(up_ms + degraded_ms + down_ms + unknown_ms), 0)::BIGINT AS judged_ms
    FROM {accountable_pings} AS p
    WHERE {chosen} AND pinged_us >= $since_us AND pinged_us < $until_us
    GROUP BY agent
) AS sums
JOIN (
    SELECT
        agent, pinged_us, outcome, verdict, reason, uptime_percent, consecutive_poor,
        interval_seconds, next_us, response_us, late_us
    FROM {accountable_pings} AS p
    WHERE {chosen} AND pinged_us >= $since_us AND pinged_us < $until_us
) AS newest ON newest.agent = sums.agent AND newest.pinged_us = sums.last_us
JOIN agents AS a ON a.agent = sums.agent
LEFT JOIN (
    SELECT unnest(from_json($unaccounted, '[{
        "agent": "INTEGER", "unreported_ms": "BIGINT", "lost_ms": "BIGINT"
    }]'), recursive := true)
) AS gone ON gone.agent = sums.agent
ORDER BY newest.consecutive_poor DESC, period_uptime_percent NULLS FIRST, a.agent_id
