"""Old days as Parquet: written, inspected, adopted, repaired and imported."""
