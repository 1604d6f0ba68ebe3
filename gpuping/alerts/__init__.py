"""Alerts: finds what goes wrong in the fleet, and tells people once about every change."""
