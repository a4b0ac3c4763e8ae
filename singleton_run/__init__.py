"""flock(1) for a cluster: put it in front of a command, and one copy runs at a time."""

__version__ = "0.1.0"
