-- An agent's outcomes around a month: reports may end after it (misses make windows long) and clocks may differ.
SELECT
    ping_seq, pinged_us, outcome::VARCHAR, verdict::VARCHAR, uptime_percent,
    up_ms, degraded_ms, down_ms, unknown_ms, excused_ms,
    pinged_us + until_ms * 1000 AS until_us,
    pinged_us + (until_ms - since_ms - up_ms - degraded_ms - down_ms - unknown_ms - excused_ms) * 1000 AS since_us,
    gpu_set
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY pinged_us;
