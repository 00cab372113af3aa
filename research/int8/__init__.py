"""What int8 towers cost and keep."""
