"""DuckDB: the file, its schema, partitions, rollups and errors."""
