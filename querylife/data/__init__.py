"""Training data: catalogues, queries and their grades."""
