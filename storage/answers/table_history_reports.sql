LEFT JOIN (
    SELECT agent, ping_seq, pinged_us, payload, signature
    FROM {evidence}
    WHERE pinged_us >= $since_us AND pinged_us < $until_us
) AS e USING (agent, ping_seq, pinged_us)
