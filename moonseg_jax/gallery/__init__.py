"""Held-out scenes with what a model made of them, kept in the folder of a run."""
