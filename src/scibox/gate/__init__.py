"""Who may enter: authenticate a secret, admit a call."""
