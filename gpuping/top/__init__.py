"""`gpuping top`: the fleet in a terminal, sorted, searched, and one agent in full."""
