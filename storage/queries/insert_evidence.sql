INSERT INTO evidence BY NAME
SELECT row.*
FROM (
    SELECT unnest(from_json($rows, '[{
        "agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT", "signature": "VARCHAR", "payload": "VARCHAR"
    }]')) AS row
);
