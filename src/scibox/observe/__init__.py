"""What operators see: events turned into log lines."""
