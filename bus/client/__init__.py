"""Typed questions to the running services, for everybody who asks them over the bus."""
