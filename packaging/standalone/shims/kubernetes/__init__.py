"""Of the official client only what logs in by a kubeconfig is here."""
