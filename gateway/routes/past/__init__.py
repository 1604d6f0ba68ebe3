"""The routes that answer about the past: history, charts, statements and exports."""
