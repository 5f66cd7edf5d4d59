"""Components: pure functions in, stored parts out."""
