-- The windows of the fleet in a month, added up by agent and by class. A class holds windows that
-- both rules pay at the same rate: the uptime of a sum lies between the uptimes of its parts.
-- {now}, {then}: how many bands of the rules the uptime of a window reaches.
-- Windows count whole, by the time of their ping; an agent's statement divides those at the edges.
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
)
GROUP BY agent, class
ORDER BY agent;
