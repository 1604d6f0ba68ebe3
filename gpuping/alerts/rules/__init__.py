"""What the alerts file says: rules, routes and targets, and what follows from them. Pure."""
