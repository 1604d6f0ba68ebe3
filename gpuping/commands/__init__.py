"""The commands of the command line, their options, and how they ask a running system."""
