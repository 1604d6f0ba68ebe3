"""Backup, restore and migration of a bus: what stands in its streams, the archive, and the keys."""
