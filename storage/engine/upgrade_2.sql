-- From schema 2, which kept no remarks.
ALTER TABLE pings ADD COLUMN remarks VARCHAR;
-- Sums that have a window which cannot be (`{accountable_pings}`) are made again, a day at a time.
-- Archived days are not read here, because one of them may be damaged: where there are any, all sums
-- are made again.
DELETE FROM sealed WHERE EXISTS (FROM archived) OR EXISTS (
    FROM pings
    WHERE up_ms + degraded_ms + down_ms + unknown_ms + excused_ms > pinged_us // 1000
);
DELETE FROM agent_days WHERE NOT EXISTS (FROM sealed WHERE rollup = 'agent_days');
DELETE FROM fleet_hours WHERE NOT EXISTS (FROM sealed WHERE rollup = 'fleet_hours');
DELETE FROM fleet_latencies WHERE NOT EXISTS (FROM sealed WHERE rollup = 'fleet_hours');
DELETE FROM about;
INSERT INTO about VALUES (3);
