"""A smaller text tower for queries: distilled, measured beside the large one."""
