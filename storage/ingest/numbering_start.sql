-- Of the numberings of these agents that a restart ended after `since_us`, when the first one began.
-- Null where there is none.
SELECT min(began_us)
FROM (
    SELECT pinged_us AS ended_us, lag(pinged_us, 1, 0) OVER (PARTITION BY agent ORDER BY pinged_us) AS began_us
    FROM restarts
    WHERE agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
)
WHERE ended_us > $since_us;
