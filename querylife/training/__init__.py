"""Training: data, losses, the training loop."""
