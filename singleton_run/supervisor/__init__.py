"""Runs a crontab: one small parent, and a process for each line that is the front of its turns."""
