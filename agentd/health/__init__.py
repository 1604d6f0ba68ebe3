"""Decides from readings whether a GPU is up, degraded, down or unknown."""
