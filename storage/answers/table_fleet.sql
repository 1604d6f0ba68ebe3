-- The fleet's sums, in one row or one a day or hour: whole sealed hours from the rollup, the edges
-- from the rows.
-- $unaccounted: what no window accounts for, by the begin of each row
-- (storage/statements/unaccounted.py).
-- $grain: the length of a row in microseconds, the whole period's where it is one row.
SELECT
    make_timestamp(greatest(begins_us, $since_us))::TIMESTAMPTZ AS since,
    make_timestamp(least(begins_us + $grain, $until_us))::TIMESTAMPTZ AS until,
    * EXCLUDE (begins_us, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms, unreported_ms),
    up_ms / 1000 AS up_seconds,
    degraded_ms / 1000 AS degraded_seconds,
    down_ms / 1000 AS down_seconds,
    unknown_ms / 1000 AS unknown_seconds,
    excused_ms / 1000 AS excused_seconds,
    unreported_ms / 1000 AS unreported_seconds,
    uptime_percent(
        up_ms + degraded_ms, up_ms + degraded_ms + down_ms + unknown_ms + unreported_ms
    ) AS uptime_percent
FROM (
    SELECT
        $base_us + (at_us - $base_us) // $grain * $grain AS begins_us,
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
        sum(excused_ms)::BIGINT AS excused_ms,
        sum(unreported_ms)::BIGINT AS unreported_ms
    FROM (
        SELECT
            hour * 3600000000 AS at_us, pings, answered, missed, excused, first, good, poor,
            up_ms, degraded_ms, down_ms, unknown_ms, excused_ms, 0 AS unreported_ms
        FROM fleet_hours
        WHERE hour >= $first AND hour < $end
        UNION ALL
        SELECT
            any_value(pinged_us), count(*),
            count(*) FILTER (outcome = 'answered'), count(*) FILTER (outcome = 'missed'),
            count(*) FILTER (outcome = 'excused'), count(*) FILTER (verdict = 'first'),
            count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
            coalesce(sum(up_ms), 0), coalesce(sum(degraded_ms), 0), coalesce(sum(down_ms), 0),
            coalesce(sum(unknown_ms), 0), coalesce(sum(excused_ms), 0), 0
        FROM {accountable_pings}
        WHERE (pinged_us >= $since_us AND pinged_us < $head_until_us)
            OR (pinged_us >= $tail_since_us AND pinged_us < $until_us)
        GROUP BY (pinged_us - $base_us) // $grain
        UNION ALL
        SELECT begins_us, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, lost_ms, unreported_ms
        FROM (
            SELECT unnest(from_json($unaccounted, '[{
                "begins_us": "BIGINT", "unreported_ms": "BIGINT", "lost_ms": "BIGINT"
            }]'), recursive := true)
        )
    )
    GROUP BY begins_us
)
ORDER BY begins_us
