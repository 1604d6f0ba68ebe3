INSERT INTO agents BY NAME
SELECT row.*
FROM (SELECT unnest(from_json($rows, '[{"agent": "INTEGER", "agent_id": "VARCHAR"}]')) AS row);
