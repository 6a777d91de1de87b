"""Rewards of rollouts: terms, specs that weigh them, and named shapes. Pure functions of arrays, on device."""

from moonseg_jax.rewards.overlap import mask_iou
from moonseg_jax.rewards.spec import RewardSpec
from moonseg_jax.rewards.weighted_term import WeightedTerm

__all__ = ["RewardSpec", "WeightedTerm", "mask_iou"]
