-- The windows in which an agent was asked and never answered: those of misses after which no
-- answered ping has them. (Where our clock was set back, an empty window begins where the next one
-- does.) An agent that misses numbers may have answered all the same.
SELECT agent, begin_us, max(pinged_us) AS missed_us
FROM (
    SELECT agent, ping_seq, pinged_us, pinged_us - since_ms * 1000 AS begin_us
    FROM {pings}
    WHERE outcome = 'missed' AND until_ms IS NULL AND since_ms IS NOT NULL
        AND pinged_us >= $since_us AND pinged_us < $until_us
) AS misses
ANTI JOIN (
    SELECT agent, ping_seq, pinged_us - 1000 * (
        since_ms + up_ms + degraded_ms + down_ms + unknown_ms + excused_ms
    ) AS begin_us
    FROM {pings}
    WHERE until_ms IS NULL AND since_ms IS NOT NULL AND up_ms IS NOT NULL
        AND agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
        AND pinged_us >= $since_us AND pinged_us < $until_us
) AS answered
    ON answered.agent = misses.agent AND answered.begin_us = misses.begin_us
        AND answered.ping_seq > misses.ping_seq
GROUP BY agent, begin_us;
