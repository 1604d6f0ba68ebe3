"""The verbs of the command line, their options, and how they ask."""
