INSERT INTO gpu_sets BY NAME
SELECT row.*
FROM (SELECT unnest(from_json($rows, '[{"gpu_set": "INTEGER", "gpus": "VARCHAR"}]')) AS row);
