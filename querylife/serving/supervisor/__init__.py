"""What owns the Triton process."""
