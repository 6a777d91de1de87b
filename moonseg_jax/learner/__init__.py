"""Losses, optimizers and gradient steps of the three stages."""
