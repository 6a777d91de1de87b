"""Sweeps: many trials of one question, run in any order and in pieces, and the table that compares them."""
