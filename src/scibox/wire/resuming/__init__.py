"""What it takes to go on with a broken answer on another replica."""
