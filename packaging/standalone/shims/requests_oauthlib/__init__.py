"""A login that is left out."""

OAuth2Session = None
