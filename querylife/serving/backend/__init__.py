"""What runs inside Triton's Python backends."""
