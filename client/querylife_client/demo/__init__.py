"""`querylife demo`: from a catalogue to a page of rankings, through the real server."""
