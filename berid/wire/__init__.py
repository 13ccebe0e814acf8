"""Protocol engines: bytes in, events out. No sockets, no clock, nothing of ours imported."""
