"""The names of mesh axes, and nothing else."""

DATA = "data"
"""Mesh axis over which examples are split."""

FSDP = "fsdp"
"""Mesh axis over which parameters and examples are split."""
