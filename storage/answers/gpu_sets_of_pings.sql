-- The GPUs that some outcomes reported.
SELECT agent, pinged_us, gpu_set
FROM {pings}
WHERE pinged_us >= $since_us AND gpu_set IS NOT NULL
    AND agent IN (SELECT unnest(from_json($agents, '["INTEGER"]')))
    AND pinged_us IN (SELECT unnest(from_json($times_us, '["BIGINT"]')));
