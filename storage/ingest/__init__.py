"""Turns messages of the history stream into rows, each exactly once."""
