"""Reads the history stream into the store, and rebuilds the store from it."""
