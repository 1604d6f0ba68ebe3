-- When an agent's history begins. Only the rows up to its first sealed day are read.
SELECT min(pinged_us) AS first_us
FROM {pings}
WHERE agent = $agent AND pinged_us < coalesce(
    (SELECT min(day) + 1 FROM agent_days WHERE agent = $agent) * 86400000000, $ever
);
