"""JSON over HTTP/1.1 to one of several addresses, light enough for the way to the command."""
