"""Tuning and measuring the GenFilt generator."""
