"""SciBox: one OpenAI-compatible address over your own models."""

__version__ = "0.1.0"
