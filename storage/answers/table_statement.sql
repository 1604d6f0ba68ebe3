-- A statement's accounts: the host, then each GPU.
SELECT unnest(from_json($rows, '[{
    "agent_id": "VARCHAR", "month": "VARCHAR", "subject": "VARCHAR", "gpu_name": "VARCHAR",
    "final": "BOOLEAN", "enrolled_seconds": "DOUBLE",
    "up_seconds": "DOUBLE", "degraded_seconds": "DOUBLE", "down_seconds": "DOUBLE",
    "unknown_seconds": "DOUBLE", "excused_seconds": "DOUBLE", "unreported_seconds": "DOUBLE",
    "coverage_percent": "DOUBLE", "uptime_percent": "DOUBLE"
}]'), recursive := true)
