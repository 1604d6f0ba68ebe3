-- The windows that cannot be: they would have begun before 1970. Nothing of them is accounted for.
SELECT agent, ping_seq, pinged_us
FROM {pings}
WHERE ($agent IS NULL OR agent = $agent) AND pinged_us >= $since_us AND pinged_us < $until_us AND up_ms IS NOT NULL
    AND up_ms + degraded_ms + down_ms + unknown_ms + excused_ms > pinged_us // 1000
ORDER BY pinged_us
LIMIT $limit;
