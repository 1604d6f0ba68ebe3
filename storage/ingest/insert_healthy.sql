-- Inserts healthy pings from the columns of numbers in HealthyRows, which DuckDB reads in place. The other columns of
-- `pings` are the same in all of them. -1 is NO_GPUS and NOT_TOLD, -2^62 is MEASURED.
INSERT INTO pings BY NAME
SELECT
    * REPLACE (
        if(isnan(response_us), NULL, response_us)::BIGINT AS response_us,
        if(isnan(late_us), NULL, late_us)::BIGINT AS late_us,
        nullif(gpu_set, -1) AS gpu_set,
        nullif(enrolled_us, -1) AS enrolled_us,
        nullif(until_ms, -4611686018427387904) AS until_ms
    ),
    'answered' AS outcome, 'good' AS verdict, 100.0 AS uptime_percent, 0 AS consecutive_poor,
    0 AS degraded_ms, 0 AS down_ms, 0 AS unknown_ms, 0 AS excused_ms
FROM healthy;
