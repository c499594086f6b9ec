"""What llama-server is sent, and what of it must be undone in its answers."""
