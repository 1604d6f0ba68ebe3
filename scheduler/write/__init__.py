"""What is written to the bucket: timers, and writes that are collected into batches."""
