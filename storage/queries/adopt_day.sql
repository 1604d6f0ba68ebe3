INSERT INTO archived SELECT $day, $generation, count(*) FROM read_parquet($file);
