-- An agent's outcomes around a month. A report may end after the month, because misses make its
-- window long. A label of the agent's clock is kept as milliseconds after the ping.
SELECT
    ping_seq, pinged_us, outcome::VARCHAR AS outcome, verdict::VARCHAR AS verdict, uptime_percent,
    pinged_us + (
        until_ms - since_ms - up_ms - degraded_ms - down_ms - unknown_ms - excused_ms
    ) * 1000 AS labelled_since_us,
    pinged_us + until_ms * 1000 AS labelled_until_us,
    response_us, gpu_set, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY pinged_us;
