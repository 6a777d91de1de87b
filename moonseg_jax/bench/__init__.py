"""Benchmarks: what a figure in a README or a note was measured with."""
