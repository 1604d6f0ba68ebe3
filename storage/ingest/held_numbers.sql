-- The first and last number of each agent, and how many there are. They have no gap where the three agree.
-- Sealed days are summed already.
SELECT agent, min(first_seq), max(last_seq), sum(pings)::BIGINT
FROM (
    SELECT agent, first_seq, last_seq, pings FROM agent_days
    UNION ALL
    SELECT agent, min(ping_seq), max(ping_seq), count(*) FROM {pings}
    WHERE pinged_us >= coalesce((SELECT until_us FROM sealed WHERE rollup = 'agent_days'), -4611686018427387904)
    GROUP BY agent
)
GROUP BY agent;
