-- Whole sealed days from the rollup, the edges from the rows; the sums are the same either way.
WITH asked AS (
    SELECT agent, agent_id FROM agents WHERE agent_id IN (SELECT unnest($agent_ids))
),
parts AS NOT MATERIALIZED (
    SELECT agent, up_ms + degraded_ms AS good_ms, up_ms + degraded_ms + down_ms + unknown_ms AS judged_ms
    FROM agent_days
    WHERE day >= $first_day AND day < $end_day AND agent IN (SELECT agent FROM asked)
    UNION ALL
    SELECT agent, up_ms + degraded_ms, up_ms + degraded_ms + down_ms + unknown_ms
    FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $head_until_us AND agent IN (SELECT agent FROM asked)
    UNION ALL
    SELECT agent, up_ms + degraded_ms, up_ms + degraded_ms + down_ms + unknown_ms
    FROM {pings}
    WHERE pinged_us >= $tail_since_us AND agent IN (SELECT agent FROM asked)
)
SELECT asked.agent_id, sums.good_ms, sums.judged_ms
FROM (
    SELECT agent, sum(good_ms)::BIGINT AS good_ms, sum(judged_ms)::BIGINT AS judged_ms FROM parts GROUP BY agent
) AS sums
JOIN asked USING (agent)
WHERE sums.judged_ms > 0;
