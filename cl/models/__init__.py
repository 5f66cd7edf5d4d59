"""Frozen backbones, how they are loaded, and heads."""
