"""What time of a window counts: measured by the scheduler, filled by what the host says. Pure."""
