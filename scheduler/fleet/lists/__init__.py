"""What is shown of agents: their views, lists of them, and the map of the fleet."""
