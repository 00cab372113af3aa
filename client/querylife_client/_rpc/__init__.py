"""gRPC channels, calls, retries."""
