"""Procedural scenes with referring expressions: the data set that is embedded in the project."""
