-- Columns that may be null and that a file of this schema did not always have. A program that does not know them
-- reads and writes the file all the same, so that a version can be taken back.
ALTER TABLE pings ADD COLUMN IF NOT EXISTS enrolled_us BIGINT;
