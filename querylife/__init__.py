"""Query-LIFE: relevance of products (title, photo, product type) to a shopper's query."""

__version__ = "0.1.0"
