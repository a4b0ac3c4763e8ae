"""The call: argv and environment become settings."""
