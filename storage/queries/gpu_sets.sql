SELECT gpu_set, gpus FROM gpu_sets WHERE list_contains($gpu_sets, gpu_set);
