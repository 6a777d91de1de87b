"""Figures of a split from its samples' counts; the order of the samples never matters."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from moonseg_jax.metrics import LARGE_FROM, MEDIUM_FROM, THRESHOLDS
from moonseg_jax.scoring.sample_score import SampleScore, ratio

Figures = dict[str, float]


def merge(*shards: Sequence[SampleScore]) -> list[SampleScore]:
    """The samples of all shards in the order of their ids.

    Raises:
      ValueError: two samples have one id.
    """
    samples = sorted((sample for shard in shards for sample in shard), key=lambda sample: sample.id)
    for before, after in itertools.pairwise(samples):
        if before.id == after.id:
            raise ValueError(f"two samples have the id {after.id!r}")
    return samples


def figures(samples: Sequence[SampleScore]) -> Figures:
    """`miou`, `ciou`, `p50` … `p90`, `biou_2px`, `biou_2pct`, `f`, `jf`, `n`; with empty truths `n_acc`, `t_acc`.

    N-acc is the share of samples without target that are answered with an empty mask, T-acc that of samples with
    a target that are not (Liu et al. 2023, GRES).

    Raises:
      ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("there is no sample, so there is no mean")
    miou, f = mean(one.iou for one in samples), mean(one.f for one in samples)
    result = {
        "miou": miou,
        "ciou": ratio(sum(one.intersection for one in samples), sum(one.union for one in samples)),
        **{f"p{round(100 * least)}": mean(float(one.iou >= least) for one in samples) for least in THRESHOLDS},
        "biou_2px": mean(ratio(one.near_both, one.near_either) for one in samples),
        "biou_2pct": mean(ratio(one.relative_both, one.relative_either) for one in samples),
        "f": f,
        "jf": (miou + f) / 2,
        "n": len(samples),
    }
    without = [one for one in samples if one.true == 0]
    if without:
        result["n_acc"] = mean(float(one.predicted == 0) for one in without)
        if len(without) < len(samples):
            result["t_acc"] = mean(float(one.predicted > 0) for one in samples if one.true)
    return result


def mean(values: Iterable[float]) -> float:
    """Mean of at least one value; the sum is rounded once, so that the order does not matter."""
    listed = list(values)
    return math.fsum(listed) / len(listed)


def by_size(samples: Sequence[SampleScore]) -> dict[str, Figures]:
    """Figures of `small`, `medium` and `large` objects; sizes without a sample are left out."""
    groups: dict[str, list[SampleScore]] = collections.defaultdict(list)
    for one in samples:
        if one.true:
            share = one.true / one.size
            groups["large" if share >= LARGE_FROM else "medium" if share >= MEDIUM_FROM else "small"].append(one)
    return {name: figures(groups[name]) for name in ("small", "medium", "large") if name in groups}


def mean_over_classes(samples: Sequence[SampleScore], classes: Sequence[int]) -> float:
    """LVIS's second variant: mean over classes of each class's mean IoU; the first, over pairs, is `miou`.

    Args:
      samples: (image, category) pairs, at least one.
      classes: the category of each.
    """
    groups: dict[int, list[float]] = collections.defaultdict(list)
    for one, category in zip(samples, classes, strict=True):
        groups[category].append(one.iou)
    return mean(mean(group) for group in groups.values())


def status_counts(samples: Sequence[SampleScore]) -> dict[str, int]:
    """How many samples ended in which status, and `empty`: how many predictions are empty."""
    counts = collections.Counter(one.status for one in samples)
    return {**dict(sorted(counts.items())), "empty": sum(one.predicted == 0 for one in samples)}


def bootstrap(
    samples: Sequence[SampleScore], *, seed: int = 0, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of `miou` and `ciou` over resampled samples; a function of the set and the seed.

    cIoU is the ratio of resampled sums.

    Raises:
      ValueError: two samples have one id, or there is none.
    """
    ordered = merge(samples)
    if not ordered:
        raise ValueError("there is no sample to resample")
    ious = np.array([one.iou for one in ordered])
    both, either = (np.array(counts) for counts in zip(*((one.intersection, one.union) for one in ordered)))
    generator = np.random.default_rng(seed)
    means, ratios = [], []
    for _ in range(resamples):
        chosen = generator.integers(len(ordered), size=len(ordered))
        means.append(ious[chosen].mean())
        ratios.append(ratio(int(both[chosen].sum()), int(either[chosen].sum())))
    return {name: _interval(values) for name, values in (("miou", means), ("ciou", ratios))}


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
