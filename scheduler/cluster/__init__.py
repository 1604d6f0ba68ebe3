"""How several schedulers divide the agents among themselves."""
