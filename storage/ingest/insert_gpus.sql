INSERT INTO gpus BY NAME
SELECT row.*
FROM (
    SELECT from_json(unnest(string_split($rows, chr(10))), '{
        "agent": "INTEGER", "ping_seq": "BIGINT", "pinged_us": "BIGINT", "place": "INTEGER",
        "uuid": "VARCHAR", "gpu_index": "INTEGER", "name": "VARCHAR", "state": "VARCHAR", "reasons": "VARCHAR",
        "uptime_percent": "DOUBLE", "up_ms": "BIGINT", "degraded_ms": "BIGINT", "down_ms": "BIGINT",
        "unknown_ms": "BIGINT", "excused_ms": "BIGINT"
    }') AS row
);
