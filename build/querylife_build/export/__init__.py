"""Towers to ONNX."""
