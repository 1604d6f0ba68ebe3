DELETE FROM fleet_hours WHERE hour >= $since_us // 3600000000 AND hour < $until_us // 3600000000;
DELETE FROM fleet_latencies WHERE hour >= $since_us // 3600000000 AND hour < $until_us // 3600000000;
