"""Cleaning a referring data set as RefCOCO-M was made: an ensemble draws every mask again and votes on it."""
