"""Times and rules of slots, without a process and without a server."""
