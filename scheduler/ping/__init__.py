"""One ping, from its due time to the batch that writes its outcome."""
