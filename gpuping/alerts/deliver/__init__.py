"""Makes notifications of changes, and sends each to its target."""
