"""Answers pings for agents that know HTTP only, in networks that the operator listed."""
