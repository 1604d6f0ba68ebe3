"""Accounts one agent's month, and replays months under other rules."""
