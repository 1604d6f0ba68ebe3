"""Pings every agent when it is due, and decides when it is due next."""
