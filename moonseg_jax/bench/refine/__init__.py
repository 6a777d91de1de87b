"""The refiner's benchmark: crops per second, beside PyTorch on the same weights and crops."""
