"""Offline jobs over a catalogue: describe, filter, embed. A killed job resumes where it was."""
