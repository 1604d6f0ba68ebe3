-- Whole sealed days from the rollup, the edges from the rows; the sums are the same either way.
SELECT a.agent_id, sum(s.good_ms)::BIGINT, sum(s.judged_ms)::BIGINT
FROM (
    SELECT agent, up_ms + degraded_ms AS good_ms, up_ms + degraded_ms + down_ms + unknown_ms AS judged_ms
    FROM agent_days
    WHERE day >= $first_day AND day < $end_day
    UNION ALL
    SELECT agent, up_ms + degraded_ms, up_ms + degraded_ms + down_ms + unknown_ms
    FROM {pings}
    WHERE pinged_us >= $since_us AND pinged_us < $head_until_us AND up_ms IS NOT NULL
    UNION ALL
    SELECT agent, up_ms + degraded_ms, up_ms + degraded_ms + down_ms + unknown_ms
    FROM {pings}
    WHERE pinged_us >= $tail_since_us AND up_ms IS NOT NULL
) AS s
JOIN agents AS a USING (agent)
WHERE list_contains($agent_ids, a.agent_id)
GROUP BY a.agent_id
HAVING sum(s.judged_ms) > 0;
