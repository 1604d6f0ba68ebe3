-- Once: the same bytes under the same name are the same message, wherever in whichever stream they come again.
INSERT INTO poisoned
SELECT $stream_us, $sequence, $subject, $detail, $payload
WHERE NOT EXISTS (FROM poisoned WHERE subject = $subject AND payload = $payload);
