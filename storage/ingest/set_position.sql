-- One row, replaced: deleted and put in anew, so that nothing is ever updated in place.
DELETE FROM position;
INSERT INTO position VALUES ($stream_us, $sequence, $fingerprint);
