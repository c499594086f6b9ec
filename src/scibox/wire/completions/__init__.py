"""The older completions API."""
