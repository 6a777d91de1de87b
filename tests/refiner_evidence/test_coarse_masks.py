"""Where coarse masks come from, and which phrases they answer."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_models import scenes

from moonseg_jax import cli, judge
from moonseg_jax.baselines import mask_iou
from moonseg_jax.batch import true_mask
from moonseg_jax.errors import UserError
from moonseg_jax.refine import Refiner
from moonseg_jax.refiner_evidence.coarse_masks import corrupted_masks, outline_masks
from moonseg_jax.refiner_evidence.outline_errors import OutlineErrors
from moonseg_jax.refiner_evidence.sources import gather
from moonseg_jax.status import EMPTY_RESULT

ERRORS = OutlineErrors(
    shift=np.array([[0.05, 0.0]]), stretch=np.zeros((1, 2)), jitter=np.array([0.02]), kept=np.array([0.8])
)


@pytest.fixture
def given():
    """Three scenes, the first phrase of the first without target."""
    first, *others = scenes(3)
    no_target = dataclasses.replace(first.examples[0], target=None)
    return [dataclasses.replace(first, examples=(no_target, *first.examples[1:])), *others]


def test_ground_truths_are_corrupted_where_there_are_some(given):
    targets = [true_mask(example) for scene in given for example in scene.examples[:2]][1:]
    for masks in (corrupted_masks(given, 2, 0), outline_masks(given, 2, 0, ERRORS)):
        assert len(masks) == 5 and all(np.array_equal(one.truth, truth) for one, truth in zip(masks, targets))
        assert all(0.1 < mask_iou(one.coarse, one.truth) < 1 for one in masks)


def test_a_phrase_has_the_same_corruption_whatever_else_is_judged(given):
    few, many = corrupted_masks(given[:2], 1, 7), corrupted_masks(given, 2, 7)
    assert np.array_equal(few[0].coarse, many[1].coarse) and np.array_equal(few[0].box, many[1].box)
    other = corrupted_masks(given[:2], 1, 8)
    assert not np.array_equal(few[0].coarse, other[0].coarse)


def test_scenes_without_any_target_are_refused(given):
    with pytest.raises(UserError, match="none of the first 1 phrases of 1 scenes has a target"):
        gather(None, None, None, given[:1], list, phrases=1, seed=0, coarse_from=("corrupted",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scenes", "0"), "--scenes must be at least 1, got 0"),
        (("--iterations", "0"), "--iterations must be at least 1, got 0"),
        (("--coarse-from", "policy", "policy"), "--coarse-from names sources"),
        (("-o", "gone/evidence.json"), "there is no folder gone"),
        (("--checkpoint", "gone"), "gone"),
    ],
)
def test_options_that_cannot_work_are_one_line_and_exit_code_2(words, said, capsys):
    assert cli.main(["evidence", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_command_prints_tables_and_writes_figures(capsys, tmp_path, monkeypatch):
    def load(folder, policy, params, batch, iterations, guard):
        """Gives back what it gets, then nothing."""
        assert (batch, iterations) == (4, 2)
        refiner = Refiner(policy, None, None, batch, iterations)
        refiner._run_each = lambda policy, head, crops, masks: [
            (part, np.ones(len(masks))) for part in (masks, 0 * masks)
        ]
        return refiner

    monkeypatch.setattr(judge, "load_refiner", load)
    words = ["--scenes", "2", "--iterations", "2", "--refine-batch", "4", "--coarse-from", "corrupted"]
    assert cli.main(["evidence", *words, "-o", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found) == ["corrupted"] and found["corrupted"]["n"] == 4
    coarse, same, nothing = (one["miou"] for one in found["corrupted"]["groups"][0]["iterations"])
    assert same == pytest.approx(coarse, abs=0.05) and nothing == coarse
    assert found["corrupted"]["statuses"] == {EMPTY_RESULT: 4}
    printed = capsys.readouterr().out
    assert f"| coarse | {coarse:.3f} |" in printed and f"| iteration 1 | {same:.3f} |" in printed
