-- The reports that are kept beside the outcomes of a page.
SELECT ping_seq, pinged_us, signature, payload
FROM {evidence}
WHERE agent = $agent AND pinged_us BETWEEN $since_us AND $until_us;
