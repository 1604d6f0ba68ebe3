-- Days with rows that the history stream does not hold any more and the archive does not hold yet.
SELECT count(DISTINCT pinged_us // $day_us) FROM pings WHERE pinged_us < $before_us
