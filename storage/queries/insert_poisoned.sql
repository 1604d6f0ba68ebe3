-- Once, however often the stream is read again.
INSERT INTO poisoned
SELECT $1, $2, $3, $4, $5
WHERE NOT EXISTS (SELECT 1 FROM poisoned WHERE stream_us = $1 AND sequence = $2);
