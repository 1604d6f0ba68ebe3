"""What people see who do not sign in: status pages, badges, and a host's own view."""
