-- The ranges of consecutive numbers of some agents, since each one's last restart.
SELECT agent, min(ping_seq), max(ping_seq)
FROM (
    SELECT agent, ping_seq, ping_seq - row_number() OVER (PARTITION BY agent ORDER BY ping_seq) AS run
    FROM (
        SELECT DISTINCT p.agent, p.ping_seq
        FROM {pings} AS p
        LEFT JOIN (SELECT agent, max(pinged_us) AS since_us FROM restarts GROUP BY agent) AS r USING (agent)
        WHERE p.agent IN (SELECT unnest(from_json($agents, '["INTEGER"]'))) AND p.pinged_us >= coalesce(r.since_us, p.pinged_us)
    )
)
GROUP BY agent, run
ORDER BY agent, min(ping_seq);
