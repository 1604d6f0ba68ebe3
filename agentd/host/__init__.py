"""The machine around agentd: systemd, the kernel log and installation as a service."""
