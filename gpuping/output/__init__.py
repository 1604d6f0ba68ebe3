"""What answers look like in a terminal, a pipe or a file."""
