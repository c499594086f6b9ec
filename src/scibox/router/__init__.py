"""Where a call goes: from a model's name to a replica."""
