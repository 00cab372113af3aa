"""GenFilt: a gRPC service in front of a vLLM generator that finds false negatives among training pairs."""
