DELETE FROM archived WHERE day = $day;
INSERT INTO archived VALUES ($day, $generation, $pings, $gpus, $incidents, $evidence);
