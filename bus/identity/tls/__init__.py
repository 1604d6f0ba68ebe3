"""The certificate of the bus: where its files lie, and how they are made."""
