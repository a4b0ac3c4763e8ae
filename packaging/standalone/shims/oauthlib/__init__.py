"""A login that is left out."""
