"""Sampling paths from the policy."""
