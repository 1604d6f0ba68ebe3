INSERT INTO evidence BY NAME
SELECT row.*
FROM (
    SELECT from_json(unnest(string_split($rows, chr(10))), '{
        "agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT", "signature": "VARCHAR", "payload": "VARCHAR"
    }') AS row
);
