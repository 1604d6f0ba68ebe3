-- One file of a partition read whole, down to the last value, and what it must not hold, counted.
SELECT
    count(*),
    count(*) FILTER (pinged_us < $since_us OR pinged_us >= $until_us),
    count(*) FILTER ({empty}),
    count(*) FILTER (ping_seq < 1),
    bit_xor(hash(x))
FROM (SELECT {columns} FROM ({rows})) AS x;
