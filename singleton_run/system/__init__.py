"""This machine: the kernel's calls, processes, pipes and memory that processes share."""
