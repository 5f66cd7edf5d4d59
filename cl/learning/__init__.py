"""What the author of a strategy meets."""
