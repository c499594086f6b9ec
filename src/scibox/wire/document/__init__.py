"""`GET /openapi.json`, made of the records that check requests; what is done with each parameter."""
