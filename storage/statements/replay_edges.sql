-- The measured windows that lie in a month and outside of it, to be divided at its edges.
SELECT
    agent, ping_seq, pinged_us, begin_us,
    up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
FROM (
    SELECT *, pinged_us - 1000 * (
        up_ms + degraded_ms + down_ms + unknown_ms + excused_ms
    ) AS begin_us
    FROM {pings}
    WHERE up_ms IS NOT NULL AND until_ms IS NULL AND since_ms = 0
        AND pinged_us > $since_us AND pinged_us < $awaited_us
)
WHERE begin_us < $until_us AND begin_us >= 0 AND (begin_us < $since_us OR pinged_us >= $until_us)
ORDER BY agent, pinged_us;
