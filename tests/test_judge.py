"""What evaluation reports of refinement: figures, statuses, iterations; decoding and the network are replaced."""

import numpy as np
import pytest

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax import judge as judge_module
from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Prediction
from moonseg_jax.judge import judge
from moonseg_jax.predict import find_weights
from moonseg_jax.refine import Refiner
from moonseg_jax.shipped import shipped
from moonseg_jax.status import EMPTY_PATH, NOT_ASKED, REFINED

SETTINGS = {"scenes": [generate_scene(5_000, index, 2, "val") for index in range(3)], "phrases": 2, "seed": 0}


class BoxDecoder:
    """Draws every object's box, and nothing for the first phrase."""

    def __init__(self, policy, *, images, phrases, crops, temperature=0.0):
        self.phrases = phrases

    def __call__(self, params, scenes, seed=0):
        predictions = [drawn_box(example) for scene in scenes for example in scene.examples[: self.phrases]]
        first = predictions[0]
        predictions[0] = Prediction(example=first.example, box=first.box, polygons=(), tokens=4)
        return predictions


def drawn_box(example):
    truth = true_mask(example)
    size = np.array(truth.shape[::-1])
    places = np.argwhere(truth)[:, ::-1]
    low, high = places.min(axis=0) / size, (places.max(axis=0) + 1) / size
    corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
    return Prediction(
        example=example, box=np.concatenate([(low + high) / 2, high - low]), polygons=(corners,), tokens=9
    )


@pytest.fixture
def boxes(monkeypatch):
    """Evaluation of boxes, with a refiner that gives back what it gets."""
    monkeypatch.setattr(judge_module, "Decoder", BoxDecoder)

    def load(folder, policy, params, batch, iterations):
        refiner = Refiner(policy, None, None, batch, iterations)
        refiner._run = lambda policy, head, crops, masks: (masks, np.ones(len(masks)))
        return refiner

    monkeypatch.setattr(judge_module, "load_refiner", load)


@pytest.mark.usefixtures("boxes")
def test_every_phrase_ends_in_a_status():
    found = judge(shipped("rl"), shipped("refiner"), **SETTINGS)
    phrases = found.coarse["n"]
    assert found.statuses == {EMPTY_PATH: 1, REFINED: phrases - 1} and found.iterations == 5
    assert abs(found.refined["miou"] - found.coarse["miou"]) < 0.05, "this refiner gives back what it gets"
    other = judge(shipped("rl"), shipped("refiner"), iterations=2, refine_batch=3, **SETTINGS)
    assert (other.coarse, other.refined, other.statuses) == (found.coarse, found.refined, found.statuses)
    assert other.iterations == 2, "the batch changes no figure"


@pytest.mark.usefixtures("boxes")
def test_without_refinement_there_are_no_refined_figures():
    found = judge(shipped("sft"), None, **SETTINGS)
    assert found.refined is None and found.iterations == 0
    assert found.statuses == {EMPTY_PATH: 1, NOT_ASKED: found.coarse["n"] - 1}


@pytest.mark.usefixtures("boxes")
def test_the_gallery_shows_what_became_of_each_phrase():
    scenes = [generate_scene(5_000, index, 2, "val") for index in range(2)]
    found = judge_module.judge(shipped("rl"), shipped("refiner"), scenes, phrases=1, seed=0)
    assert [item.status for item in found.gallery] == [EMPTY_PATH, REFINED]
    assert found.gallery[0].iou == 0 and not found.gallery[0].refined.any()
    coarse = judge_module.judge(shipped("rl"), None, scenes, phrases=1, seed=0)
    assert [(item.status, item.refined) for item in coarse.gallery] == [(EMPTY_PATH, None), (NOT_ASKED, None)]


def test_a_checkpoint_without_refiner_is_refused():
    with pytest.raises(UserError, match=r"holds no refiner weights.*--no-refine"):
        find_weights(shipped("sft"), None, refine=True, iterations=None)
    with pytest.raises(UserError, match="--iterations must not be negative"):
        find_weights(None, None, refine=True, iterations=-1)
