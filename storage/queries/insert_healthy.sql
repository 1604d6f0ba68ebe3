-- Healthy pings are lists of numbers, a line each: half the columns are the same in all of them, and to parse a line
-- with names takes twice as long (measured). The places are HealthyRow's.
INSERT INTO pings BY NAME
SELECT
    line[1] AS agent,
    line[2] AS ping_seq,
    line[3] AS pinged_us,
    line[4] AS next_us,
    line[5] AS interval_seconds,
    line[6] AS up_ms,
    line[7] AS until_ms,
    line[8] AS since_ms,
    line[9] AS response_us,
    line[10] AS late_us,
    line[11] AS gpu_set,
    'answered' AS outcome, 'good' AS verdict, 100.0 AS uptime_percent, 0 AS consecutive_poor,
    0 AS degraded_ms, 0 AS down_ms, 0 AS unknown_ms, 0 AS excused_ms
FROM (SELECT from_json(unnest(string_split($rows, chr(10))), '["BIGINT"]') AS line);
