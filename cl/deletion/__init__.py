"""Exact deletion: what is to be forgotten, what it touches, how it is carried out and recorded."""
