-- The fleet in a period: whole sealed hours from the rollup, the edges from the rows.
SELECT
    sum(pings)::BIGINT AS pings, sum(excused)::BIGINT AS excused, sum(first)::BIGINT AS first,
    sum(good)::BIGINT AS good, sum(poor)::BIGINT AS poor,
    coalesce(sum(up_ms), 0)::BIGINT AS up_ms,
    coalesce(sum(degraded_ms), 0)::BIGINT AS degraded_ms,
    coalesce(sum(down_ms), 0)::BIGINT AS down_ms,
    coalesce(sum(unknown_ms), 0)::BIGINT AS unknown_ms,
    coalesce(sum(excused_ms), 0)::BIGINT AS excused_ms
FROM (
    SELECT pings, excused, first, good, poor, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
    FROM fleet_hours
    WHERE hour >= $first AND hour < $end
    UNION ALL
    SELECT
        count(*), count(*) FILTER (verdict = 'excused'), count(*) FILTER (verdict = 'first'),
        count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
        sum(up_ms), sum(degraded_ms), sum(down_ms), sum(unknown_ms), sum(excused_ms)
    FROM {accountable_pings}
    WHERE pinged_us >= $since_us AND pinged_us < $head_until_us
    UNION ALL
    SELECT
        count(*), count(*) FILTER (verdict = 'excused'), count(*) FILTER (verdict = 'first'),
        count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
        sum(up_ms), sum(degraded_ms), sum(down_ms), sum(unknown_ms), sum(excused_ms)
    FROM {accountable_pings}
    WHERE pinged_us >= $tail_since_us
);
