INSERT INTO gpu_sets BY NAME
SELECT row.*
FROM (SELECT from_json(unnest(string_split($rows, chr(10))), '{"gpu_set": "INTEGER", "gpus": "VARCHAR"}') AS row);
