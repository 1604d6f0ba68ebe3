-- When history of an agent begins; sealed days are summed already.
SELECT min(pinged_us) FROM {pings}
WHERE agent = $agent AND pinged_us < coalesce((SELECT min(day) + 1 FROM agent_days WHERE agent = $agent) * 86400000000, $ever);
