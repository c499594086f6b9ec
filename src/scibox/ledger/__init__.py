"""What it cost: the journal, the feeder into the database, reports."""
