"""Attacks on what the product promises about deletion and access, each as somebody would try it."""
