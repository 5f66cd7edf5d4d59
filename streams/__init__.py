"""Families of task streams, one file each. They are found by name through the entry points `palimpsest.streams`."""
