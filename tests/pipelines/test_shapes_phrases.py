"""Every phrase means exactly one object: checked by a reading of the words written independently."""

import collections
import math

import numpy as np
import pytest

from data_pipelines.shapes.layout import Role, VisibleObject
from data_pipelines.shapes.levels import HELD_OUT
from data_pipelines.shapes.scene import draw_scene

SCENES_PER_LEVEL = 200
CLEAR = 0.05
"""Difference of centroids, as a share of the image, below which a reader could not be sure."""


def noun_fits(words, item):
    known = {item.role.size, item.role.colour, item.role.kind, "object"}
    return all(word in known for word in words)


def centre(item):
    rows, columns = np.nonzero(item.mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / item.mask.shape[0]


def certain_meanings(phrase, objects):
    """Objects a phrase may mean. An object that only just fails or fits a word of place is in doubt: nan."""
    assert phrase.startswith("the ")
    head, *landmark = phrase[len("the ") :].split(" the ")
    words = head.split()
    centres = [centre(item) for item in objects]
    if landmark:
        relation = "left" if words[-2:] == ["left", "of"] else "right" if words[-2:] == ["right", "of"] else words[-1]
        words = words[: -2 if words[-1] == "of" else -1]
        (anchor,) = [k for k, item in enumerate(objects) if noun_fits(landmark[0].split(), item)]
        gap = {
            "left": lambda k: centres[anchor][0] - centres[k][0],
            "right": lambda k: centres[k][0] - centres[anchor][0],
            "above": lambda k: centres[anchor][1] - centres[k][1],
            "below": lambda k: centres[k][1] - centres[anchor][1],
        }[relation]
        fitting = [k for k, item in enumerate(objects) if noun_fits(words, item) and k != anchor]
        return [k if gap(k) >= CLEAR - 1e-6 else math.nan for k in fitting if gap(k) > -CLEAR + 1e-6]
    if words[0] in ("leftmost", "rightmost", "topmost", "bottommost"):
        axis = 0 if words[0] in ("leftmost", "rightmost") else 1
        sign = 1 if words[0] in ("leftmost", "topmost") else -1
        fitting = [k for k, item in enumerate(objects) if noun_fits(words[1:], item)]
        first = min(sign * centres[k][axis] for k in fitting)
        return [k for k in fitting if sign * centres[k][axis] < first + CLEAR - 1e-6]
    return [k for k, item in enumerate(objects) if noun_fits(words, item)]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_phrase_means_its_target_and_nothing_else(level):
    for split in ("train", "val_unseen"):
        for index in range(SCENES_PER_LEVEL if split == "train" else SCENES_PER_LEVEL // 4):
            scene = draw_scene(11, index, level, split)
            for said in scene.expressions:
                assert certain_meanings(said.phrase, scene.objects) == [said.target], (index, said)


def test_the_checker_sees_ambiguity():
    def item(kind, column):
        mask = np.zeros((96, 96), bool)
        mask[40:50, column : column + 10] = True
        role = Role(colour="red", kind=kind, size="small")
        return VisibleObject(role=role, mask=mask, centroid=(0.0, 0.0))

    objects = [item("star", 10), item("star", 13), item("ring", 60)]
    assert certain_meanings("the red star", objects) == [0, 1]
    assert certain_meanings("the leftmost star", objects) == [0, 1]
    assert certain_meanings("the star left of the ring", objects) == [0, 1]
    assert certain_meanings("the ring", objects) == [2]


def test_phrases_of_a_scene_differ_and_targets_are_shared_out():
    repeated = 0
    for index in range(150):
        said = draw_scene(12, index, 2, "train").expressions
        assert len({one.phrase for one in said}) == len(said) >= 2
        repeated += len({one.target for one in said}) == 1
    assert repeated / 150 < 0.1


def test_size_words_are_said_only_where_needed():
    for index in range(150):
        scene = draw_scene(13, index, 2, "train")
        for said in scene.expressions:
            if said.tags[0] == "size" and "relation" not in said.tags:
                shorter = said.phrase.replace("small ", "").replace("large ", "")
                assert len(certain_meanings(shorter, scene.objects)) > 1


def test_the_mix_of_phrases_at_level_two():
    families = collections.Counter()
    for index in range(400):
        for said in draw_scene(14, index, 2, "train").expressions:
            families[next((tag for tag in ("relation", "order", "size") if tag in said.tags), "attribute")] += 1
    shares = {family: count / families.total() for family, count in families.items()}
    for family, share in {"attribute": 0.61, "size": 0.12, "order": 0.18, "relation": 0.09}.items():
        assert shares[family] == pytest.approx(share, abs=0.05)


def test_held_out_pairs_never_occur_in_train_and_val_and_are_all_targeted_in_val_unseen():
    for split in ("train", "val"):
        for level in (1, 2, 4):
            for index in range(100):
                roles = [item.role for item in draw_scene(15, index, level, split).objects]
                assert not HELD_OUT & {(role.colour, role.kind) for role in roles}
    met = set()
    for index in range(150):
        scene = draw_scene(15, index, 2, "val_unseen")
        for said in scene.expressions:
            role = scene.objects[said.target].role
            assert role.colour in said.phrase.split() and role.kind in said.phrase.split()
            met.add((role.colour, role.kind))
    assert met == HELD_OUT
