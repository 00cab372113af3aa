"""What towers of less precision cost and keep on CPU."""
