"""The door: routes, SSE, errors, Swagger at `/`."""
