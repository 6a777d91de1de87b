"""Moondream Segmentation in JAX: masks from words, trained by reinforcement learning on mask quality."""

__version__ = "0.1.0"
