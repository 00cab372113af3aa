"""Requests and their results, without I/O."""
