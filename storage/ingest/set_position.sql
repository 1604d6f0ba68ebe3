-- Replaces the one row. It is deleted and inserted, so that nothing is ever updated in place.
DELETE FROM position;
INSERT INTO position VALUES ($stream_us, $sequence, $fingerprint);
