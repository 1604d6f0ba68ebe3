-- Inserts the outcomes of a foreign partition that history does not have.
INSERT INTO pings BY NAME
SELECT a.agent, s.gpu_set, x.* EXCLUDE (agent_id, gpus)
FROM ({partition}) AS x
JOIN agents AS a USING (agent_id)
LEFT JOIN gpu_sets AS s ON s.gpus = x.gpus
ANTI JOIN (SELECT agent, ping_seq, pinged_us FROM {pings} WHERE pinged_us >= $since_us AND pinged_us < $until_us) AS held
    ON held.agent = a.agent AND held.ping_seq = x.ping_seq AND held.pinged_us = x.pinged_us
QUALIFY row_number() OVER (PARTITION BY x.agent_id, x.ping_seq, x.pinged_us) = 1
ORDER BY x.pinged_us;
