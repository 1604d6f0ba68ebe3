"""What a service shows over HTTP on this machine: a small server, and its metrics."""
