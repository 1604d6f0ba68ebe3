"""How it travels: the connection, JetStream's layout, consumers, batches, micro services and files."""
