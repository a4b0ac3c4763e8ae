"""The front, the process that the user started: it decides, forwards signals and enforces deadlines."""
