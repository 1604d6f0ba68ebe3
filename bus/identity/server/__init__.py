"""What a nats-server is told of identities: its configuration, and its streams' folder."""
