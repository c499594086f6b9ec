"""Words and arithmetic: types, errors, events, keys. Pure: no I/O, no clock, no randomness."""
