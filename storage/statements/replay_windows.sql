-- Every window of the fleet in a month, by agent and by class: windows that every rule pays at the same rate are summed
-- here, because a ratio of sums lies between the ratios. {now}, {then}: how many of the bands' edges a window reaches.
-- Whole windows, by the moment of their ping; an agent's own statement divides those at the month's edges.
SELECT
    agent,
    sum(up_ms)::BIGINT, sum(degraded_ms)::BIGINT, sum(down_ms)::BIGINT, sum(unknown_ms)::BIGINT, sum(excused_ms)::BIGINT
FROM {pings}
WHERE pinged_us >= $since_us AND pinged_us < $until_us AND up_ms IS NOT NULL
GROUP BY agent, CASE WHEN degraded_ms + down_ms + unknown_ms > 0 THEN ({now}) * 1000 + ({then}) END
ORDER BY agent;
