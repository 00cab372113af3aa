"""Towers in 8 bits."""
