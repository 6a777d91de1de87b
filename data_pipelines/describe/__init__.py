"""A data set in numbers and pictures."""
