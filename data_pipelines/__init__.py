"""Data set builders (TFDS, ArrayRecord) and Grain loaders."""
