"""The agent on the bus: its connection, its registration and its answers."""
