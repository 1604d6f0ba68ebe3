INSERT INTO agents BY NAME
SELECT row.*
FROM (SELECT from_json(unnest(string_split($rows, chr(10))), '{"agent": "INTEGER", "agent_id": "VARCHAR"}') AS row);
