-- The time of the first outcome of a period.
SELECT min(pinged_us) FROM {pings} WHERE pinged_us >= $since_us AND pinged_us < $until_us;
