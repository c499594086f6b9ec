"""What operators send and get: owners, keys, limits; and tables of keys for spreadsheets. Pure."""
