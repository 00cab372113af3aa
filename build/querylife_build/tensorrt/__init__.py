"""TensorRT plans. Only this package imports TensorRT."""
