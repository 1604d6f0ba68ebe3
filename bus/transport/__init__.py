"""How messages travel: connection, JetStream layout, consumers, batches, services, files."""
