"""One evaluator: a split is read, answered and judged in passing, and every sample leaves a line in a log."""
