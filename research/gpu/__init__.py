"""What the GPU profile does without TensorRT."""
