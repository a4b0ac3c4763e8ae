"""What the login by OpenID Connect would take from the client."""

ApiClient = Configuration = None
