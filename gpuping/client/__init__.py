"""Asks a running system, over the bus or over REST, and finds out where it runs."""
