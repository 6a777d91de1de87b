"""Evidence and evaluation say the same of the same phrases, with a network of micro size that nothing replaces."""

import jax
import numpy as np
import pytest
from tiny_models import micro, micro_params, micro_policy, scenes

from moonseg_jax.batch import true_mask
from moonseg_jax.evaluate import Prediction, mask_metrics
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.refine import Refiner, refine_predictions
from moonseg_jax.refiner_evidence import coarse_masks
from moonseg_jax.refiner_evidence.sources import gather
from moonseg_jax.synthetic_pairs import true_box

ITERATIONS, PHRASES = 3, 2


def noisy_head():
    """A head that changes what it gets, and by how much in every iteration anew."""
    rng = np.random.default_rng(0)
    params = init_head(make_head(micro()), micro().vision.width, 3)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + rng.normal(0, 0.1, leaf.shape).astype(np.float32), params)


def drawn_diamond(example):
    """The diamond in an object's box, whose numbers are of the width that the policy gives."""
    box = true_box(true_mask(example)).astype(np.float32)
    corners = box[:2] + np.array([(0, -0.5), (0.5, 0), (0, 0.5), (-0.5, 0)]) * box[2:]
    return Prediction(example=example, box=box, polygons=(corners,), tokens=9)


@pytest.mark.usefixtures("quick_compiling")
def test_first_and_last_iteration_are_what_evaluation_calls_coarse_and_refined(monkeypatch):
    policy, params, held_out = micro_policy(), micro_params(), scenes(3)
    predictions = [drawn_diamond(one) for scene in held_out for one in scene.examples[:PHRASES]]
    monkeypatch.setattr(coarse_masks, "Decoder", lambda *_, **__: lambda *_: predictions)
    refiner = Refiner(policy, params, noisy_head(), batch=3, iterations=ITERATIONS)
    coarse = mask_metrics(predictions, [one.mask() for one in predictions]).summary()
    final = refine_predictions(refiner, predictions)
    refined = mask_metrics(predictions, [one.mask for one in final]).summary()

    found = gather(refiner, policy, params, held_out, tuple, phrases=PHRASES, seed=0, coarse_from=("policy",))["policy"]

    iterations = found.whole.iterations
    assert found.n == len(predictions) == coarse["n"] and len(iterations) == ITERATIONS + 1
    for name in ("miou", "ciou", "biou_2px", "biou_2pct"):
        assert getattr(iterations[0], name) == coarse[name]
        assert getattr(iterations[-1], name) == pytest.approx(refined[name], abs=1e-6)
    changed = sum((one.mask != drawn.mask()).any() for one, drawn in zip(final, predictions))
    assert changed == len(predictions), "a refiner that changes nothing would prove nothing"
