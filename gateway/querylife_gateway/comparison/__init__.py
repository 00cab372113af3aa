"""Two rankings of the same queries side by side: fetched, measured, written for people and for other tools."""
