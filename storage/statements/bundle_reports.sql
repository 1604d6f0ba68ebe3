-- The reports that are kept of an agent's outcomes, signed or refused.
SELECT ping_seq, pinged_us, payload, signature
FROM {evidence}
WHERE agent = $agent AND pinged_us >= $since_us AND pinged_us < $until_us;
