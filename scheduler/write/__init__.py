"""The shape of what is written to the bucket: timers, and writes gathered into batches."""
