"""What two methods or more are made of."""
