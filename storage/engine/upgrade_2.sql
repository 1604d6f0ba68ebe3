-- From schema 2, which kept no remarks.
ALTER TABLE pings ADD COLUMN remarks VARCHAR;
DELETE FROM about;
INSERT INTO about VALUES (3);
