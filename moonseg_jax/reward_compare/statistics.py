"""How two rewards differ in what they teach: functions of rewards of the same samples, on the host.

Advantages are rewards less the mean of the other samples of the group (Kool et al. 2019); values that lie closer
together than `EQUAL` are equal.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

EQUAL = 1e-6
_DECIMALS = 6


def leave_one_out(reward: Float[np.ndarray, "Q G"]) -> Float[np.ndarray, "Q G"]:
    """Reward less the mean of the other samples of its group."""
    group = reward.shape[1]
    return (reward - reward.mean(axis=1, keepdims=True)) * group / (group - 1)


def flat(reward: Float[np.ndarray, "Q G"]) -> Bool[np.ndarray, " Q"]:
    """Groups whose samples all earn the same."""
    return np.ptp(reward, axis=1) < EQUAL


def spread(reward: Float[np.ndarray, "Q G"]) -> float:
    """Mean over groups of the standard deviation within a group (divided by G)."""
    return float(reward.std(axis=1).mean())


def rank_correlation(first: Float[np.ndarray, "*N"], second: Float[np.ndarray, "*N"]) -> float | None:
    """Spearman's ρ over all values together: the correlation of their ranks, where equal values share the mean rank.

    None where one of the two has a single value, so that there is no order.
    """
    ranks = [_ranks(values.reshape(-1)) for values in (first, second)]
    centred = [one - one.mean() for one in ranks]
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else None


def sign_flips(first: Float[np.ndarray, "*N"], second: Float[np.ndarray, "*N"]) -> float:
    """Share of values that are above 0 in one and below 0 in the other: samples encouraged here, discouraged there."""
    opposite = (first > EQUAL) & (second < -EQUAL) | (first < -EQUAL) & (second > EQUAL)
    return float(opposite.mean())


def contradictions(
    first: Float[np.ndarray, "Q G"], second: Float[np.ndarray, "Q G"]
) -> tuple[Float[np.ndarray, " Q"], np.ndarray]:
    """The two samples of each group that two rewards disagree most about.

    For samples a, b with first[a] > first[b] and second[b] > second[a] the disagreement is the smaller of both
    differences, each over that reward's `spread`.

    Returns:
      Largest disagreement of each group, 0 where both rewards agree on the order; and the places [Q, 2] of a, b.
    """
    gaps = []
    for reward in (first, second):
        scale = spread(reward)
        gaps.append((reward[:, :, None] - reward[:, None, :]) / (scale if scale > 0 else 1.0))
    strength = np.maximum(np.minimum(gaps[0], -gaps[1]), 0.0).reshape(len(first), -1)
    best = strength.argmax(axis=1)
    places = np.stack(np.unravel_index(best, gaps[0].shape[1:]), axis=1)
    return strength[np.arange(len(first)), best], places


def _ranks(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    _, place, counts = np.unique(np.round(values, _DECIMALS), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
