"""The command line `gpuping`, and `gpuping up`, which runs every service in one process."""
