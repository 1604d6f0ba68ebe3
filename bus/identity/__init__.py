"""Who may do what on the bus: keys, roles, credentials, and the authority that signs them."""
