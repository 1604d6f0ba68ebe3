-- The content of each table as a count and a hash. Neither depends on the order of rows, on the numbers that the
-- dictionaries give to names, or on whether a row is in the file or in the archive.
SELECT 'pings', count(*), coalesce(sum(hash(
    a.agent_id, p.ping_seq, p.pinged_us, p.outcome::VARCHAR, p.verdict::VARCHAR, p.reason, p.uptime_percent,
    p.up_ms, p.degraded_ms, p.down_ms, p.unknown_ms, p.excused_ms, p.window_ms, p.until_ms, p.since_ms,
    p.consecutive_poor, p.interval_seconds, p.next_us, p.response_us, p.late_us, s.gpus, p.remarks,
    p.enrolled_us
)::HUGEINT), 0)
FROM {pings} AS p JOIN agents AS a USING (agent) LEFT JOIN gpu_sets AS s USING (gpu_set)
UNION ALL
SELECT 'gpus', count(*), coalesce(sum(hash(
    a.agent_id, g.ping_seq, g.pinged_us, g.place, g.uuid, g.gpu_index, g.name, g.state::VARCHAR, g.reasons,
    g.uptime_percent, g.up_ms, g.degraded_ms, g.down_ms, g.unknown_ms, g.excused_ms
)::HUGEINT), 0)
FROM {gpus} AS g JOIN agents AS a USING (agent)
UNION ALL
SELECT 'incidents', count(*), coalesce(sum(hash(
    a.agent_id, i.ping_seq, i.pinged_us, i.gpu, i.state, i.reason, i.since_us, i.until_us
)::HUGEINT), 0)
FROM {incidents} AS i JOIN agents AS a USING (agent)
UNION ALL
SELECT 'evidence', count(*), coalesce(sum(hash(a.agent_id, e.ping_seq, e.pinged_us, e.signature, e.payload)::HUGEINT), 0)
FROM {evidence} AS e JOIN agents AS a USING (agent);
