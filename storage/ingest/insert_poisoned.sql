-- Inserts a message once: the same bytes on the same subject are the same message, wherever they come again.
INSERT INTO poisoned
SELECT $stream_us, $sequence, $subject, $detail, $payload
WHERE NOT EXISTS (FROM poisoned WHERE subject = $subject AND payload = $payload);
