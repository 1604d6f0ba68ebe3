-- The good and the judged time of some agents in a period, or of all where `agent_ids` is null:
-- whole sealed days from the rollup, the edges from the rows; the sums are the same either way.
-- Each part is summed for all agents before the parts are joined and the agents picked, which is
-- six times as fast as picking first (measured).
SELECT a.agent_id, sums.good_ms, sums.judged_ms
FROM (
    SELECT agent, sum(good_ms)::BIGINT AS good_ms, sum(judged_ms)::BIGINT AS judged_ms
    FROM (
        SELECT
            agent,
            sum(up_ms + degraded_ms)::BIGINT AS good_ms,
            sum(up_ms + degraded_ms + down_ms + unknown_ms)::BIGINT AS judged_ms
        FROM agent_days
        WHERE day >= $first AND day < $end
        GROUP BY agent
        UNION ALL
        SELECT
            agent,
            sum(up_ms + degraded_ms)::BIGINT,
            sum(up_ms + degraded_ms + down_ms + unknown_ms)::BIGINT
        FROM {possible_pings}
        WHERE pinged_us >= $since_us AND pinged_us < $head_until_us
        GROUP BY agent
        UNION ALL
        SELECT
            agent,
            sum(up_ms + degraded_ms)::BIGINT,
            sum(up_ms + degraded_ms + down_ms + unknown_ms)::BIGINT
        FROM {possible_pings}
        WHERE pinged_us >= $tail_since_us
        GROUP BY agent
    )
    GROUP BY agent
) AS sums
JOIN agents AS a USING (agent)
WHERE sums.judged_ms > 0
AND ($agent_ids IS NULL OR a.agent_id IN (SELECT unnest(from_json($agent_ids, '["VARCHAR"]'))));
