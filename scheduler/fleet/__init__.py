"""What a scheduler knows of its agents: the in-memory directory, registration, and how agents are shown."""
