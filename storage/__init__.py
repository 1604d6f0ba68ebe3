"""Keeps every outcome in DuckDB and answers questions about the past."""
