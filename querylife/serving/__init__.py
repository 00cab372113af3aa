"""Serving: the Triton process, its supervisor, and what the model repository's Python backends share."""
