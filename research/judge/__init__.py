"""Fitting and measuring the GenFilt judge."""
