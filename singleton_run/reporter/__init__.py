"""The reporter: one process beside the turn, which tells others of it: metrics, health, hooks, pings."""
