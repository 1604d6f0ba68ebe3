"""Finds conditions that begin and end, and records each change once."""
