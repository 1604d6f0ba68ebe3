-- What an explanation tells of an agent's pings beside their windows.
SELECT
    pinged_us, ping_seq, outcome::VARCHAR AS outcome, verdict::VARCHAR AS verdict, reason,
    uptime_percent, consecutive_poor, interval_seconds
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY pinged_us, ping_seq;
