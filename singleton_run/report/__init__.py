"""What people are told: log lines, and the process that writes them."""
