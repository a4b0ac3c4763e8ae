"""The keeper, the process that owns the lock: the only one that loads a backend."""
