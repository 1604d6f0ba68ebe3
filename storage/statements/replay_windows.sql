-- The windows of the fleet in a month, added up by agent and by class. A class holds windows that
-- both rules pay at the same rate: the uptime of a sum lies between the uptimes of its parts.
-- {now}, {then}: how many bands of the rules the uptime of a window reaches.
-- Measured windows that cross an edge of the month are left to `replay_edges.sql`. Those of schema 2
-- count whole, by the time of their ping.
SELECT
    agent,
    sum(up_ms)::BIGINT AS up_ms,
    sum(degraded_ms)::BIGINT AS degraded_ms,
    sum(down_ms)::BIGINT AS down_ms,
    sum(unknown_ms)::BIGINT AS unknown_ms,
    sum(excused_ms)::BIGINT AS excused_ms
FROM (
    SELECT
        agent, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms,
        CASE
            WHEN degraded_ms + down_ms + unknown_ms > 0 THEN ({now}) * 1000 + ({then})
        END AS class
    FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $until_us AND up_ms IS NOT NULL
        AND up_ms + degraded_ms + down_ms + unknown_ms + excused_ms <= pinged_us // 1000
        AND coalesce(
            until_ms IS NOT NULL OR since_ms <> 0 OR pinged_us - 1000 * (
                up_ms + degraded_ms + down_ms + unknown_ms + excused_ms
            ) >= $since_us,
            true
        )
)
GROUP BY agent, class
ORDER BY agent;
