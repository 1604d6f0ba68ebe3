"""What a scheduler knows of its agents: the directory, registration, lists and views."""
