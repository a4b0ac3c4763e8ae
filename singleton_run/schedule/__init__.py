"""Times and rules of slots. No process and no server is in here."""
