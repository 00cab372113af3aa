"""Ablation of the training's parts."""
