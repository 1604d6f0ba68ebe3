"""Answers questions about the past, as pages and as tables."""
