DELETE FROM agent_days WHERE day >= $since_us // 86400000000 AND day < $until_us // 86400000000;
