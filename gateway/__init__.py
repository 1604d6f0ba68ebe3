"""The REST interface, the dashboard and the metrics, translated onto the bus."""
