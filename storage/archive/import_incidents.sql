INSERT INTO incidents BY NAME
SELECT a.agent, x.* EXCLUDE (agent_id)
FROM (SELECT DISTINCT * FROM ({partition})) AS x
JOIN agents AS a USING (agent_id)
ANTI JOIN (SELECT agent, ping_seq, pinged_us FROM {incidents} WHERE pinged_us >= $since_us AND pinged_us < $until_us) AS held
    ON held.agent = a.agent AND held.ping_seq = x.ping_seq AND held.pinged_us = x.pinged_us
ORDER BY x.pinged_us;
