"""The history file as asyncio uses it: one writing thread, several readers."""
