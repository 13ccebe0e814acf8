"""Verbs: the life of a message, one module per stage. See docs/flow.md for the path, function by function."""
