"""The guard, the parent of the command: it proves that every process of a turn is gone."""
