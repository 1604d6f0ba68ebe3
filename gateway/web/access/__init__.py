"""Who may ask: tokens, browser sessions, roles, limits and the public address."""
