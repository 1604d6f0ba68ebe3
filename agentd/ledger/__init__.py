"""Keeps and sums what became of every millisecond of every GPU."""
