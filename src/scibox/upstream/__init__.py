"""The one HTTP client to replicas: a Unix socket or a remote address."""
