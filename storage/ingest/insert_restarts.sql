INSERT INTO restarts BY NAME
SELECT row.*
FROM (SELECT from_json(unnest(string_split($rows, chr(10))), '{"agent": "INTEGER", "pinged_us": "BIGINT"}') AS row);
