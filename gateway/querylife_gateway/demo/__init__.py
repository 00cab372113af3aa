"""`querylife demo`: from a catalogue to a page, through the real server."""
