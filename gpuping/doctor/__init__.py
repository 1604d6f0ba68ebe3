"""The checks of `gpuping doctor`."""
