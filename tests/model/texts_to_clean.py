"""Texts that tokenizers clean."""

TITLES = ["Puma Men's Black T-Shirt, size 42", "  Kurta   für Damen\n", "RED_watch & strap (steel)", "x " * 90]
ODD = [
    "Red-Shirt, (blue)!",
    "!!!",
    "a\tb\nc",
    "ﬁne Ｆｕｌｌ width",
    "日本語",
    "naïve “quotes” ▁x",
    " lead",
    "don't 50% off",
    "😀",
]
