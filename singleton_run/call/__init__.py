"""The call: turns argv and environment into settings."""
