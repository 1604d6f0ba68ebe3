-- The agents that missed a ping in a measured window. Most often there are few, and nothing more is
-- read for the others.
SELECT DISTINCT agent FROM {pings}
WHERE outcome = 'missed' AND until_ms IS NULL AND since_ms IS NOT NULL
    AND pinged_us >= $since_us AND pinged_us < $until_us;
