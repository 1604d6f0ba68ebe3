"""The command line, and `up`, which composes the services."""
