-- Exact percentiles, in microseconds: for periods with few enough pings to be sorted.
SELECT
    quantile_cont(response_us, [0.5, 0.95, 0.99]) AS response_us,
    quantile_cont(late_us, [0.5, 0.95, 0.99]) AS late_us
FROM {pings}
WHERE pinged_us >= $since_us;
