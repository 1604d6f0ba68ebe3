INSERT INTO incidents BY NAME
SELECT row.*
FROM (
    SELECT unnest(from_json($rows, '[{
        "agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT", "gpu": "VARCHAR",
        "state": "VARCHAR", "reason": "VARCHAR", "since_us": "BIGINT", "until_us": "BIGINT"
    }]')) AS row
);
