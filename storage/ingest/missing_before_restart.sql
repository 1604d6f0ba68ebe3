-- Counts the numbers that never came, by agent, in numberings that ended with a restart: those of a period, and
-- those directly before its first. Where retention has expired the beginning of a numbering, nothing before the
-- first number that is left counts as missing.
SELECT agent, sum(greatest(last_seq - before_seq - held, 0))::BIGINT
FROM (
    SELECT
        p.agent,
        count(DISTINCT p.ping_seq) FILTER (p.pinged_us >= $since_us) AS held,
        max(p.ping_seq) FILTER (p.pinged_us >= $since_us) AS last_seq,
        coalesce(
            max(p.ping_seq) FILTER (p.pinged_us < $since_us),
            if(n.began_us < coalesce((SELECT max(until_us) FROM forgotten), 0), min(p.ping_seq) - 1, 0)
        ) AS before_seq
    FROM {pings} AS p
    JOIN (
        SELECT agent, pinged_us AS ended_us, lag(pinged_us, 1, 0) OVER (PARTITION BY agent ORDER BY pinged_us) AS began_us
        FROM restarts
        WHERE agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
    ) AS n ON p.agent = n.agent AND p.pinged_us >= n.began_us AND p.pinged_us < n.ended_us
    WHERE n.ended_us > $since_us AND p.pinged_us < $until_us
    GROUP BY p.agent, n.began_us, n.ended_us
)
WHERE last_seq IS NOT NULL
GROUP BY agent;
