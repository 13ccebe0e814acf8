"""Nouns and their rules: what a message, an account, a price, a route is and may become. Does no I/O."""
