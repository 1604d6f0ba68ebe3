SELECT ping_seq, pinged_us, gpu, state, reason, since_us, until_us
FROM {incidents}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us
ORDER BY pinged_us, since_us;
