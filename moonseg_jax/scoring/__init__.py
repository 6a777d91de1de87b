"""Masks against ground truth, sample by sample: exact counts, and the figures and intervals they give."""
