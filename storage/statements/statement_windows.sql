-- An agent's outcomes around a month. A report may end after the month, because misses make its
-- window long. A label of the agent's clock is kept as milliseconds after the ping;
-- a measured window ends at the ping.
SELECT
    ping_seq, pinged_us, outcome::VARCHAR AS outcome, verdict::VARCHAR AS verdict, uptime_percent,
    pinged_us + (
        coalesce(until_ms, 0) - since_ms - up_ms - degraded_ms - down_ms - unknown_ms - excused_ms
    ) * 1000 AS labelled_since_us,
    CASE WHEN since_ms IS NOT NULL THEN
        pinged_us + coalesce(until_ms, 0) * 1000
    END AS labelled_until_us,
    CASE WHEN until_ms IS NULL AND since_ms IS NOT NULL THEN pinged_us - 1000 * (
        since_ms + coalesce(up_ms + degraded_ms + down_ms + unknown_ms + excused_ms, 0)
    ) END AS measured_since_us,
    response_us, gpu_set, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms,
    remarks, enrolled_us
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY pinged_us, ping_seq;
