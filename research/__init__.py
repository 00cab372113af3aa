"""What is run to learn, and not shipped: ablations, generator tuning, quantisation studies."""
