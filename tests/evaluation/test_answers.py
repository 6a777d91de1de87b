"""Which program answers which phrases; drawing is replaced."""

import numpy as np
import pytest
from eval_samples import UNKNOWN_WORD, changed, held_out, write_weights

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.evaluate import Prediction
from moonseg_jax.evaluation import answers
from moonseg_jax.evaluation.rows import Place, blocks, read_ahead, rows
from moonseg_jax.status import EMPTY_PATH, UNSAYABLE

SIZES = (48, 96, 48, 48)


class NamingDecoder:
    """Answers with the crops of its program and the example as box."""

    def __init__(self, policy, *, images, phrases, crops, temperature, mesh):
        self.crops, self.temperature, self.most = crops, temperature, (images, phrases)

    def __call__(self, params, scenes, seed):
        assert len(scenes) <= self.most[0] and all(len(scene.examples) <= self.most[1] for scene in scenes)
        return [
            Prediction(
                example=example, box=np.array([self.crops, self.temperature, seed, example.example_id]), polygons=(),
                tokens=4,
            )
            for scene in scenes
            for example in scene.examples
        ]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder)
    return folder


def test_images_of_one_crop_and_larger_ones_go_through_programs_of_their_own(weights, monkeypatch):
    monkeypatch.setattr(answers, "Decoder", NamingDecoder)
    scenes = [generate_scene(0, index, 1, "val", size) for index, size in enumerate(SIZES)]
    scenes[2] = changed(scenes[2], 0, phrase=UNKNOWN_WORD)
    answerer = answers.Answerer(
        weights, None, batch=4, phrases=2, refine_batch=1, iterations=None, guard=False, sample_seed=7
    )  # fmt: skip
    (block,) = blocks(rows(held_out(scenes, 2), share=0, shares=1, after=None), answerer.rows)
    found = answerer(block)
    places = [(number, position) for number in range(4) for position in range(2)]
    assert [(one.place.scene, one.place.position) for one in found] == places
    for one, (number, position) in zip(found, places):
        example = scenes[number].examples[position]
        assert one.drawn.example is example and one.scene is scenes[number]
        if example.phrase == UNKNOWN_WORD:
            assert (one.final.status, one.drawn.tokens, one.sampled.tokens) == (UNSAYABLE, 0, 0)
        else:
            crops = 5 if SIZES[number] == 96 else 1
            assert one.drawn.box.tolist() == [crops, 0, 7, example.example_id]
            assert one.sampled.box.tolist() == [crops, 1, 7, example.example_id]
            assert one.final.status == EMPTY_PATH
    assert "starfish" in answerer.unsayable and answerer.iterations == 0


def test_rows_go_on_after_a_place_and_shares_miss_nothing():
    scenes = [generate_scene(0, index, 1, "val", 48) for index in range(5)]
    scenes[1] = type(scenes[1])(examples=tuple(scenes[1].examples[0] for _ in range(11)))

    def places(**settings):
        asked = {"share": 0, "shares": 1, "after": None} | settings
        found = rows(held_out(scenes, asked.pop("phrases", None)), **asked)
        return [(row.first.scene, row.first.position + k) for row in found for k in range(len(row.examples))]

    whole = [(number, k) for number, scene in enumerate(scenes) for k in range(len(scene.examples))]
    assert places() == whole
    for done in (0, 4, len(whole) - 1):
        assert places(after=Place(scene=whole[done][0], position=whole[done][1])) == whole[done + 1 :]
    assert sorted(places(share=0, shares=2) + places(share=1, shares=2)) == whole
    assert places(phrases=1) == [(number, 0) for number in range(5)]
    assert [len(row.examples) for row in rows(held_out(scenes), share=1, shares=9, after=None)] == [4, 4, 3]


def test_blocks_are_read_ahead_in_order_and_errors_come_through():
    scenes = [generate_scene(0, index, 1, "val", 48) for index in range(5)]
    found = list(read_ahead(blocks(rows(held_out(scenes, 1), share=0, shares=1, after=None), 2)))
    assert [[row.first.scene for row in block] for block in found] == [[0, 1], [2, 3], [4]]

    def broken():
        yield found[0]
        raise OSError("the disk is gone")

    ahead = read_ahead(broken())
    assert next(ahead) is found[0]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_large_images_make_small_blocks(monkeypatch):
    monkeypatch.setattr("moonseg_jax.evaluation.rows.BLOCK_PIXELS", 3 * 48 * 48)
    scenes = [generate_scene(0, index, 1, "val", 48) for index in range(5)]
    found = blocks(rows(held_out(scenes, 1), share=0, shares=1, after=None), 16)
    assert [len(block) for block in found] == [3, 2]
