"""The rollout benchmark: what the engine does, beside PyTorch on the same weights and prompts."""
