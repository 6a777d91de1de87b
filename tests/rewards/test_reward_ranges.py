"""Whatever is drawn, every term stays in its range and every shape gives a finite reward."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moonseg_jax.rewards.reward import reward_of, row_values
from moonseg_jax.rewards.row import RewardRow
from moonseg_jax.rewards.shapes import SHAPES
from moonseg_jax.rewards.terms import TERMS
from moonseg_jax.rewards.weighted_term import WeightedTerm
from moonseg_jax.types import EdgeBatch

SIDE, EDGES = 12, 6
USED = {one.label: one for named in SHAPES.values() for one in named.spec.terms}
USED |= {name: WeightedTerm(term=name) for name in TERMS}


@jax.jit
def judge(row):
    values = row_values(USED.values(), row)
    return values, {
        name: [reward_of(one.spec, values, step) for step in one.spec.breakpoints] for name, one in SHAPES.items()
    }


def masks(seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    soft = rng.uniform(size=(SIDE, SIDE))
    return {
        "empty": np.zeros((SIDE, SIDE)), "full": np.ones((SIDE, SIDE)), "soft": soft, "faint": soft * 1e-38,
        "hard": np.round(soft), "half": np.full((SIDE, SIDE), 0.5),
        "pixel": np.eye(1, SIDE**2, seed % SIDE**2).reshape(SIDE, SIDE),
    }[kind]  # fmt: skip


KINDS = st.sampled_from(["empty", "full", "soft", "faint", "hard", "pixel", "half"])
NUMBERS = st.floats(-2, 3, width=32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999), drawn=KINDS, true=KINDS,
    box=st.lists(st.sampled_from([0.0, 1.0, 0.5, -0.3, 1e-30, 2.0]) | NUMBERS, min_size=4, max_size=4),
    length=st.integers(0, 4000), reference=st.integers(0, 800), finish=st.integers(0, 2),
    points=st.lists(st.sampled_from([0.0, 0.25, 1.0]) | NUMBERS, min_size=4 * EDGES, max_size=4 * EDGES),
    valid=st.lists(st.booleans(), min_size=EDGES, max_size=EDGES),
    subpath=st.lists(st.integers(0, 9), min_size=EDGES, max_size=EDGES),
)  # fmt: skip
def test_terms_keep_their_range_and_rewards_are_finite(
    seed, drawn, true, box, length, reference, finish, points, valid, subpath
):
    row = RewardRow(
        coverage=masks(seed, drawn).astype(np.float32), truth=masks(seed + 1, true) > 0.5,
        box=np.array(box, np.float32), length=np.array(length), reference_length=np.array(reference),
        finish=np.array(finish),
        edges=EdgeBatch(
            points=np.array(points, np.float32).reshape(EDGES, 2, 2), valid=np.array(valid),
            subpath=np.array(sorted(subpath)),
        ),
    )  # fmt: skip
    values, shaped = jax.device_get(judge(row))
    for label, value in values.terms.items():
        term = USED[label].definition
        assert term.low <= value <= term.high, (label, value)
    assert 0.0 <= values.iou <= 1.0
    assert all(np.isfinite(value) for steps in shaped.values() for value in steps)
    if not values.has_target:
        assert {float(value) for steps in shaped.values() for value in steps} == {float(values.draws_nothing)}
