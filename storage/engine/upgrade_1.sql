-- From schema 1: how many rows a partition has beside its outcomes was not counted.
ALTER TABLE archived ADD COLUMN gpus BIGINT;
ALTER TABLE archived ADD COLUMN incidents BIGINT;
ALTER TABLE archived ADD COLUMN evidence BIGINT;
DELETE FROM about;
INSERT INTO about VALUES (2);
