"""`gpuping up`: the whole system in one process."""
