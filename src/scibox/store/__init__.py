"""What survives a restart: keys and their owners, in SQLite."""
