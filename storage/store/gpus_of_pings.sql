-- The GPUs of some agents' pings, in the order in which their reports had them.
SELECT
    agent, ping_seq, pinged_us, uuid, gpu_index, name, state::VARCHAR AS state, reasons,
    uptime_percent, up_ms, degraded_ms, down_ms, unknown_ms, excused_ms
FROM {gpus}
WHERE agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
    AND pinged_us BETWEEN $since_us AND $until_us
ORDER BY pinged_us, agent, place;
