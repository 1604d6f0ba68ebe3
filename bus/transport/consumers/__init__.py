"""Reading streams: ordered and pull consumers, and the watcher of keys."""
