"""Scores of masks of real photos equal independent implementations of the definitions, from file to figure."""

import json
import os
import pathlib

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

from moonseg_jax.mask_scoring.run import score_predictions
from moonseg_jax.mask_scoring.truths import read_truths

COUNT = 60
"""Every so many annotations so that there are about as many."""


@pytest.fixture(scope="module")
def instances():
    if "MOONSEG_REAL_DATA" not in os.environ:
        pytest.skip("MOONSEG_REAL_DATA does not name the folder of real photos and their masks")
    return pathlib.Path(os.environ["MOONSEG_REAL_DATA"]) / "coco" / "instances.json"


def boundary_iou(first, second):
    """Cheng et al. 2021: pixels of a mask no farther than d from its outside, chessboard distance; the image's edge is
    outside too. The paper's code erodes d times with a 3 x 3 square, which is that distance."""
    distance = max(1, round(0.02 * np.hypot(*first.shape)))

    def inner(mask):
        far = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
        return mask & (far <= distance)

    a, b = inner(first), inner(second)
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


def boundary_f(first, second):
    """Perazzi et al. 2016, as `db_eval_boundary` of the DAVIS toolkit: boundary maps by neighbours to the east, south
    and south-east, matched within a disk."""
    limit = np.ceil(0.008 * np.hypot(*first.shape))

    def thin(mask):
        east, south, both = (np.zeros_like(mask) for _ in range(3))
        east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        found = (mask ^ east) | (mask ^ south) | (mask ^ both)
        found[-1], found[:, -1] = (mask ^ east)[-1], (mask ^ south)[:, -1]
        found[-1, -1] = False
        return found

    a, b = thin(first), thin(second)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision = (distance_transform_edt(~b)[a] <= limit).mean()
    recall = (distance_transform_edt(~a)[b] <= limit).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def perturbed(mask, number):
    """A mask of the same size that is wrong in one of several ways."""
    kind = number % 4
    if kind == 0:
        return np.roll(mask, (3, -2), axis=(0, 1))
    if kind == 1:
        return distance_transform_edt(~mask) <= 4
    if kind == 2:
        return mask & (np.arange(mask.shape[1]) % 64 < 40)
    return mask


def test_real_masks_score_as_independent_implementations_say(instances, tmp_path):
    coco = COCO(instances)
    numbers = sorted(number for number, one in coco.anns.items() if not one["iscrowd"])
    asked = numbers[:: max(len(numbers) // COUNT, 1)]
    pairs, lines = {}, []
    for position, number in enumerate(asked):
        truth = coco.annToMask(coco.anns[number]) > 0
        guess = perturbed(truth, position)
        pairs[str(number)] = (guess, truth)
        encoded = coco_mask.encode(np.asfortranarray(guess, np.uint8))
        lines.append({"id": number, "rle": {"size": encoded["size"], "counts": encoded["counts"].decode()}})
    (tmp_path / "masks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    truths = read_truths(instances, dataset=None, split=None, split_by=None, instances=False)
    result = score_predictions(
        tmp_path / "masks.jsonl", truths, samples=tmp_path / "samples.jsonl", progress=False
    )  # fmt: skip
    scored = {line["id"]: line for line in map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())}
    assert len(scored) == len(numbers) == result["figures"]["n"]
    assert result["statuses"]["missing"] == len(numbers) - len(asked)
    for number, (guess, truth) in pairs.items():
        line = scored[number]
        encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in (guess, truth)]
        theirs = coco_mask.iou(encoded[:1], encoded[1:], [0])
        assert line["iou"] == pytest.approx(float(theirs[0, 0]), abs=1e-9)
        ours = line["relative_both"] / line["relative_either"] if line["relative_either"] else 1.0
        assert ours == pytest.approx(boundary_iou(guess, truth), abs=1e-9)
        assert line["f"] == pytest.approx(boundary_f(guess, truth), abs=1e-9)
    both = sum((a & b).sum() for a, b in pairs.values())
    missed = sum(coco.annToMask(coco.anns[n]).sum() for n in numbers if str(n) not in pairs)
    either = sum((a | b).sum() for a, b in pairs.values()) + missed
    assert result["figures"]["ciou"] == pytest.approx(both / either, abs=1e-12)
    mean = sum(scored[number]["iou"] for number in pairs) / len(numbers)
    assert result["figures"]["miou"] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("instances_wanted", [False, True])
def test_lvis_truths_score_themselves_perfectly(instances, tmp_path, instances_wanted):
    lvis = instances.parent.parent / "lvis" / "lvis_val_50.json"
    truths = read_truths(lvis, dataset=None, split=None, split_by=None, instances=instances_wanted)
    lines = []
    for truth in truths.samples:
        kind, *values = truth.keys[0]
        named = {"id": values[0]} if kind == "id" else dict(zip(("image_id", "category_id"), map(int, values)))
        counts = truth.target["counts"]
        lines.append({**named, "rle": {"size": [truth.height, truth.width], "counts": counts.decode()}})
    (tmp_path / "masks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score_predictions(tmp_path / "masks.jsonl", truths, progress=False)
    assert result["figures"]["miou"] == result["class_miou"] == result["figures"]["jf"] == 1.0
    content = json.loads(lvis.read_bytes())
    vague = {photo["id"]: set(photo["not_exhaustive_category_ids"]) for photo in content["images"]}
    kept = [one for one in content["annotations"] if one["category_id"] not in vague[one["image_id"]]]
    pairs = {(one["image_id"], one["category_id"]) for one in kept}
    assert result["figures"]["n"] == (len(kept) if instances_wanted else len(pairs))
    assert result["classes"] == len({one["category_id"] for one in kept})
