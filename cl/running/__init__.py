"""A run: its request, session and figures, and what may be asked of it afterwards."""
