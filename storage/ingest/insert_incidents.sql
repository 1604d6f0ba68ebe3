INSERT INTO incidents BY NAME
SELECT row.*
FROM (
    SELECT from_json(unnest(string_split($rows, chr(10))), '{
        "agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT", "gpu": "VARCHAR",
        "state": "VARCHAR", "reason": "VARCHAR", "since_us": "BIGINT", "until_us": "BIGINT"
    }') AS row
);
