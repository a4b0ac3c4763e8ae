"""What people do with a lock apart from running a command under it: one module for each subcommand."""
