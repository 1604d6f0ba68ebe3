"""Outages of our own side, for which no host pays: of this process, the bus and its servers."""
