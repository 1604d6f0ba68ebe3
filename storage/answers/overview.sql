-- The fleet in a period: whole sealed hours from the rollup, the edges from the rows.
SELECT
    sum(pings)::BIGINT, sum(excused)::BIGINT, sum(first)::BIGINT, sum(good)::BIGINT, sum(poor)::BIGINT,
    sum(up_ms)::BIGINT, sum(degraded_ms)::BIGINT, sum(down_ms)::BIGINT, sum(unknown_ms)::BIGINT, sum(excused_ms)::BIGINT
FROM (
    SELECT pings, excused, first, good, poor, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
    FROM fleet_hours
    WHERE hour >= $first_hour AND hour < $end_hour
    UNION ALL
    SELECT
        count(*), count(*) FILTER (verdict = 'excused'), count(*) FILTER (verdict = 'first'),
        count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
        sum(up_ms), sum(degraded_ms), sum(down_ms), sum(unknown_ms), sum(excused_ms)
    FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $head_until_us
    UNION ALL
    SELECT
        count(*), count(*) FILTER (verdict = 'excused'), count(*) FILTER (verdict = 'first'),
        count(*) FILTER (verdict = 'good'), count(*) FILTER (verdict = 'poor'),
        sum(up_ms), sum(degraded_ms), sum(down_ms), sum(unknown_ms), sum(excused_ms)
    FROM {pings}
    WHERE pinged_us >= $tail_since_us
);
