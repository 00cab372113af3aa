"""Texts that tokenizers clean."""

TITLES = ["Puma Men's Black T-Shirt, size 42", "  Kurta   für Damen\n", "RED_watch & strap (steel)", "x " * 90]
