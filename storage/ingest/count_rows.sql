SELECT count(*) FROM pings
UNION ALL
SELECT coalesce(sum(pings), 0)::BIGINT FROM archived;
