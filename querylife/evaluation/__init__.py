"""Relevance of a checkpoint: benchmarks, metrics, reports."""
