"""Reads the GPUs through NVML, in a child process that may hang without harm."""
