-- Numbers that never came, in numberings that ended with a restart.
SELECT agent, sum(last_seq - held)::BIGINT
FROM (
    SELECT p.agent, count(DISTINCT p.ping_seq) AS held, max(p.ping_seq) AS last_seq
    FROM {pings} AS p
    JOIN (SELECT agent, pinged_us AS until_us, lag(pinged_us, 1, 0) OVER (PARTITION BY agent ORDER BY pinged_us) AS since_us FROM restarts) AS r
        ON p.agent = r.agent AND p.pinged_us >= r.since_us AND p.pinged_us < r.until_us
    GROUP BY p.agent, r.until_us
)
GROUP BY agent;
