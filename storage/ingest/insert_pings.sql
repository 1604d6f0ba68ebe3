-- Every column of every row, a line of JSON each: 50 times quicker than executemany (measured).
INSERT INTO pings BY NAME
SELECT row.*
FROM (
    SELECT from_json(unnest(string_split($rows, chr(10))), '{
        "agent": "INTEGER",
        "ping_seq": "BIGINT",
        "pinged_us": "BIGINT",
        "next_us": "BIGINT",
        "interval_seconds": "DOUBLE",
        "outcome": "VARCHAR",
        "verdict": "VARCHAR",
        "reason": "VARCHAR",
        "uptime_percent": "DOUBLE",
        "up_ms": "BIGINT",
        "degraded_ms": "BIGINT",
        "down_ms": "BIGINT",
        "unknown_ms": "BIGINT",
        "excused_ms": "BIGINT",
        "window_ms": "BIGINT",
        "until_ms": "BIGINT",
        "since_ms": "BIGINT",
        "consecutive_poor": "INTEGER",
        "response_us": "BIGINT",
        "late_us": "BIGINT",
        "gpu_set": "INTEGER"
    }') AS row
);
