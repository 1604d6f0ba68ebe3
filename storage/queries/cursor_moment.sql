SELECT coalesce(max(pinged_us) FILTER (ping_seq = $cursor), max(pinged_us) FILTER (ping_seq < $cursor) + 1)
FROM {pings}
WHERE agent = $agent AND pinged_us >= $since_us;
