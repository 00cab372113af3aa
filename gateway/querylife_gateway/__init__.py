"""The HTTP gateway: OpenAI-compatible embeddings, rerank and search for callers that do not speak gRPC."""
