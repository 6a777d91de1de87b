"""Reward shapes beside each other on the same stored rollouts: what a shape would teach, before it is trained with."""
