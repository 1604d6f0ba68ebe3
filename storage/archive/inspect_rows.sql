-- Reads every value of one file of a partition (the last column does that), and counts what it must not have.
SELECT
    count(*),
    count(*) FILTER (pinged_us < $since_us OR pinged_us >= $until_us),
    count(*) FILTER ({empty}),
    count(*) FILTER (ping_seq < 1),
    bit_xor(hash(x))
FROM (SELECT {columns} FROM ({rows})) AS x;
