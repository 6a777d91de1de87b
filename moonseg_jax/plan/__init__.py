"""What a training step needs of machines one does not have yet: memory, arithmetic, exchange, time."""
