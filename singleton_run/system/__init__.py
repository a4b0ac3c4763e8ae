"""This machine: kernel calls, processes, pipes, and memory that processes share."""
