"""In what order a drawing is written: where every polygon starts and which way all of them run.

The same mask has many such paths, and nothing in the image tells them apart: to a policy that imitates drawings in
random order, start and direction are coin tosses, which cost cross-entropy however well it sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def shuffled_order(
    polygons: Sequence[Int[np.ndarray, "vertices 2"]], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "vertices 2"], ...]:
    """Every polygon from a random vertex of its own, and all of them reversed half of the time.

    One toss decides for all directions: masks are filled by the nonzero rule, under which a hole is a hole because it
    runs against its outline, and parts that overlap by rounding would cancel if they ran against each other.
    Reversing all of them negates every winding number, so the mask stays the same to the last bit.
    """
    direction = 1 if rng.random() < 0.5 else -1
    return tuple(np.roll(polygon, rng.integers(len(polygon)), axis=0)[::direction] for polygon in polygons)


def order_entropy(vertices: Sequence[int]) -> float:
    """Entropy, in nats, of the random order of polygons with so many distinct vertices each, at least 3.

    log 2 of the direction and log n of every start. It is what the summed cross-entropy of the best predictor, who
    knows the drawing and not its order, exceeds that of drawings in canonical order by, per path: log n at the first
    vertex, log 2 at the second, log n again at the first vertex of every further polygon, and nothing elsewhere.
    """
    return math.log(2) + sum(math.log(count) for count in vertices) if vertices else 0.0
