"""What the user is told: the log, its sentences, and the process that writes them."""
