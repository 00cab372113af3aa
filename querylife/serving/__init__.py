"""Serving: Triton's Python backends, and the supervisor of the Triton process."""
