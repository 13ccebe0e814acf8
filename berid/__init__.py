"""Berid: a messaging platform that a company runs itself. Never lost, never doubled silently, every coin accounted for."""

__version__ = "0.1.0"
