-- A replayed month, every agent.
SELECT month, now, "then", unnest(agents, recursive := true)
FROM (
    SELECT unnest(from_json($rows, '[{
        "month": "VARCHAR", "now": "VARCHAR", "then": "VARCHAR",
        "agents": [{
            "agent_id": "VARCHAR", "change": "VARCHAR", "change_percent": "DOUBLE",
            "now_paid_percent": "DOUBLE", "then_paid_percent": "DOUBLE",
            "uptime_percent": "DOUBLE", "covered_seconds": "DOUBLE"
        }]
    }]'), recursive := true)
)
