-- One row an agent, summed over the period: whole sealed days from the rollup, the edges from the
-- rows. $unaccounted: what no window accounts for (storage/statements/unaccounted.py).
SELECT
    a.agent_id,
    make_timestamp($since_us)::TIMESTAMPTZ AS since,
    make_timestamp($until_us)::TIMESTAMPTZ AS until,
    sums.* EXCLUDE (agent, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms),
    up_ms / 1000 AS up_seconds,
    degraded_ms / 1000 AS degraded_seconds,
    down_ms / 1000 AS down_seconds,
    unknown_ms / 1000 AS unknown_seconds,
    (excused_ms + coalesce(gone.lost_ms, 0)) / 1000 AS excused_seconds,
    coalesce(gone.unreported_ms, 0) / 1000 AS unreported_seconds,
    uptime_percent(
        up_ms + degraded_ms,
        up_ms + degraded_ms + down_ms + unknown_ms + coalesce(gone.unreported_ms, 0)
    ) AS uptime_percent
FROM (
    SELECT
        agent,
        sum(pings)::BIGINT AS pings,
        sum(answered)::BIGINT AS answered,
        sum(missed)::BIGINT AS missed,
        sum(excused)::BIGINT AS excused,
        sum(first)::BIGINT AS first,
        sum(good)::BIGINT AS good,
        sum(poor)::BIGINT AS poor,
        sum(up_ms)::BIGINT AS up_ms,
        sum(degraded_ms)::BIGINT AS degraded_ms,
        sum(down_ms)::BIGINT AS down_ms,
        sum(unknown_ms)::BIGINT AS unknown_ms,
        sum(excused_ms)::BIGINT AS excused_ms
    FROM (
        SELECT
            agent, pings, answered, missed, excused, first, good, poor,
            up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
        FROM agent_days AS p
        WHERE {chosen} AND day >= $first AND day < $end
        UNION ALL
        SELECT
            agent, count(*),
            count(*) FILTER (outcome = 'answered'), count(*) FILTER (outcome = 'missed'),
            count(*) FILTER (outcome = 'excused'), count(*) FILTER (verdict = 'first'),
            count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
            coalesce(sum(up_ms), 0), coalesce(sum(degraded_ms), 0), coalesce(sum(down_ms), 0),
            coalesce(sum(unknown_ms), 0), coalesce(sum(excused_ms), 0)
        FROM {accountable_pings} AS p
        WHERE {chosen} AND (
            (pinged_us >= $since_us AND pinged_us < $head_until_us)
            OR (pinged_us >= $tail_since_us AND pinged_us < $until_us)
        )
        GROUP BY agent
    )
    GROUP BY agent
) AS sums
JOIN agents AS a ON a.agent = sums.agent
LEFT JOIN (
    SELECT unnest(from_json($unaccounted, '[{
        "agent": "INTEGER", "unreported_ms": "BIGINT", "lost_ms": "BIGINT"
    }]'), recursive := true)
) AS gone ON gone.agent = sums.agent
ORDER BY a.agent_id
