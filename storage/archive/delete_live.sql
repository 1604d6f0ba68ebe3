DELETE FROM pings WHERE pinged_us >= $since_us AND pinged_us < $until_us;
DELETE FROM gpus WHERE pinged_us >= $since_us AND pinged_us < $until_us;
DELETE FROM incidents WHERE pinged_us >= $since_us AND pinged_us < $until_us;
DELETE FROM evidence WHERE pinged_us >= $since_us AND pinged_us < $until_us;
