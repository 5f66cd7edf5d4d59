"""The methods, one file each. They are found by name through the entry points `palimpsest.strategies`."""
