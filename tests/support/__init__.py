"""The far sides that tests talk to over real sockets, and the means to disturb the line. Each has tests of its own."""
