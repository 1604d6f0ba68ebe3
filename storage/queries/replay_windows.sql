-- Every window of the fleet in a month, by agent: enough to pay by window or by month. Whole windows, by the moment
-- of their ping; an agent's own statement divides those at the month's edges.
SELECT
    agent, uptime_percent,
    sum(up_ms)::BIGINT, sum(degraded_ms)::BIGINT, sum(down_ms)::BIGINT, sum(unknown_ms)::BIGINT, sum(excused_ms)::BIGINT
FROM {pings}
WHERE pinged_us >= $since_us AND pinged_us < $until_us AND up_ms IS NOT NULL
GROUP BY agent, uptime_percent, (100.0 * up_ms) / nullif(up_ms + degraded_ms + down_ms + unknown_ms, 0)
ORDER BY agent;
