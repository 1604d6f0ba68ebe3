"""One ping from due to written: the queue, the attempt, its outcome and the batch it is committed in."""
