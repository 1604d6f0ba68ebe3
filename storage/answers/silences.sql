-- When some agents did not answer: from the first of two or more missed pings in a row to the ping
-- that was answered (null: none was yet). One missed ping that an answer followed is left out.
SELECT agent, since_us, until_us
FROM (
    SELECT
        agent,
        min(pinged_us) FILTER (outcome = 'missed') AS since_us,
        count(*) FILTER (outcome = 'missed') AS misses,
        lead(min(pinged_us) FILTER (outcome <> 'missed')) OVER (PARTITION BY agent ORDER BY run)
            AS until_us
    FROM (
        SELECT
            agent, pinged_us, outcome,
            sum((outcome <> 'missed')::INTEGER) OVER (
                PARTITION BY agent ORDER BY pinged_us, ping_seq
            ) AS run
        FROM {pings} AS p
        WHERE p.agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
            AND p.pinged_us >= $since_us
    )
    GROUP BY agent, run
)
WHERE misses >= 2 OR (misses = 1 AND until_us IS NULL)
ORDER BY agent, since_us;
