"""A whole crontab: its text becomes a list of jobs, each with a lock and a record of its own."""
