"""Asks a running system, over the bus or over REST."""
