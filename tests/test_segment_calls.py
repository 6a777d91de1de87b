"""Many phrases, many images, streams and references: one set of programs, the same answers as single calls."""

import jax
import numpy as np
import pytest
from micro_segmenter import micro_segmenter
from PIL import Image
from tiny_models import scenes

from moonseg_jax import phrase_decoder, predict
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import Decoder
from moonseg_jax.paths.svg import parse_polygons
from moonseg_jax.refine import Refiner, refine_predictions
from moonseg_jax.spatial_refs import prompt_references, reference_from_text
from moonseg_jax.streaming import BoxDrawn, Finished, PathPiece
from moonseg_jax.types import Scene

IMAGES = [scene.examples[0].image for scene in scenes(5)]
PHRASES = ["the red star", "the ring", "the small blue square"]


@pytest.fixture(scope="module")
def segmenter():
    """Compiled without most optimisations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield micro_segmenter()
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def batches(monkeypatch):
    """Shapes of the crops that are encoded, [images, crops, S, S, 3], and how many phrases are real."""
    seen = []
    packed = phrase_decoder.prompt_batch

    def prompt_batch(rows, layout):
        batch = packed(rows, layout)
        seen.append((batch.crops.shape[:2], [len(row) for row in rows]))
        return batch

    monkeypatch.setattr(phrase_decoder, "prompt_batch", prompt_batch)
    return seen


def same(one, other):
    assert (one.phrase, one.path, one.status) == (other.phrase, other.path, other.status)
    assert one.score == pytest.approx(other.score, abs=1e-4, nan_ok=True)
    np.testing.assert_array_equal(one.coarse_mask, other.coarse_mask)
    np.testing.assert_array_equal(one.mask, other.mask)


def test_a_list_of_phrases_reads_the_image_once_and_answers_as_single_calls(segmenter, batches):
    together = segmenter.segment(IMAGES[0], PHRASES)
    assert batches == [((1, 1), [3])]
    assert len({answer.path for answer in together}) > 1, "phrases matter"
    for phrase, answer in zip(PHRASES, together, strict=True):
        same(answer, segmenter.segment(IMAGES[0], phrase))


def test_a_list_of_images_is_batched_and_answers_as_single_calls(segmenter, batches):
    phrases = [PHRASES[number % 3] for number in range(5)]
    together = segmenter.segment(IMAGES, phrases)
    assert [shape for shape, _ in batches] == [(4, 1), (4, 1)]
    for image, phrase, answer in zip(IMAGES, phrases, together, strict=True):
        same(answer, segmenter.segment(image, phrase))
    for answer, again in zip(segmenter.segment(IMAGES, [PHRASES[0]]), segmenter.segment(tuple(IMAGES), PHRASES[0])):
        same(answer, again)


def test_every_phrase_in_every_image(segmenter):
    rows = segmenter.segment_each(IMAGES[:3], PHRASES[:1])
    assert [len(row) for row in rows] == [1, 1, 1]
    for row, image in zip(rows, IMAGES):
        same(row[0], segmenter.segment(image, PHRASES[0]))


def test_paths_are_those_of_the_evaluation(segmenter):
    scene = Scene(examples=scenes(1)[0].examples[:1])
    (drawn,) = Decoder(segmenter.policy, images=1, phrases=1)(segmenter.params, [scene])
    assert segmenter.segment(IMAGES[0], scene.examples[0].phrase).path == drawn.path()


def test_other_image_sizes_compile_nothing(segmenter):
    sizes = [(48, 48), (30, 41), (47, 20), (120, 130), (90, 200), (333, 77), (900, 60)]
    images = [np.asarray(Image.fromarray(IMAGES[0]).resize(size)) for size in sizes]
    for image in (images[0], images[3]):
        segmenter.segment(image, PHRASES[0])
    compiled = []

    def count(event, seconds, **kwargs):
        compiled.extend([kwargs] if event == "/jax/core/compile/backend_compile_duration" else [])

    jax.monitoring.register_event_duration_secs_listener(count)
    for image in images:
        answer = segmenter.segment(image, PHRASES[1])
        assert answer.mask.shape == image.shape[:2]
    assert compiled == []
    jax.jit(lambda x: x * 3.25)(np.ones(7, np.float32))
    assert len(compiled) == 1, "the count counts"


def test_whoever_asks_is_told_of_compiling_once(segmenter):
    said = []
    loud = predict.Segmenter(segmenter.policy, segmenter.params, None, say=said.append)
    for phrase in PHRASES[:2]:
        loud.segment(IMAGES[0], phrase)
    assert len(said) == 1 and "compiling for 1 image(s) at a time, 1 phrase(s)" in said[0]


def test_python_is_told_of_compiling_unless_it_wants_to_hear_nothing(capsys):
    predict.Segmenter.load(refine=False)._decoder(1, 1, one_by_one=True)
    heard = capsys.readouterr()
    assert heard.err.startswith("moonseg: compiling for 1 image(s)") and heard.err.count("\n") == 1 and not heard.out
    predict.Segmenter.load(refine=False, say=None)._decoder(1, 1, one_by_one=True)
    assert capsys.readouterr().err == ""


def test_batches_are_refined_with_the_settings_of_single_masks(segmenter, monkeypatch):
    first = segmenter.refiner
    guarding = Refiner(segmenter.policy, segmenter.params, first.head_params, batch=1, iterations=3, guard=True)
    made = predict.Segmenter(segmenter.policy, segmenter.params, guarding)
    made._decoders.update(segmenter._decoders)  # Compiled already.
    seen = []

    def refine(refiner, drawn):
        seen.append(refiner)
        return refine_predictions(None, drawn)

    monkeypatch.setattr(predict, "refine_predictions", refine)
    made.segment(IMAGES[0], PHRASES)
    made.segment(IMAGES[0], PHRASES[0])
    assert [(one.iterations, one.guard) for one in seen] == [(3, True)] * 2
    assert seen[0].head_params is not None and seen[0] is not seen[1] is guarding


@pytest.mark.parametrize("phrases", [PHRASES[:1], PHRASES], ids=["one phrase", "three phrases"])
def test_a_stream_gives_box_pieces_and_the_answer_of_a_plain_call(segmenter, phrases):
    events = list(segmenter.segment(IMAGES[1], phrases, stream=True))
    answers = segmenter.segment(IMAGES[1], phrases)
    for number, answer in enumerate(answers):
        own = [event for event in events if event.number == number]
        assert isinstance(own[0], BoxDrawn) and isinstance(own[-1], Finished)
        pieces = [event.text for event in own[1:-1]]
        assert len(pieces) > 1 and all(isinstance(event, PathPiece) for event in own[1:-1])
        assert own[0].box == answer.box and " ".join(pieces) == answer.path
        same(own[-1].segmentation, answer)
        assert parse_polygons(own[-1].segmentation.path)


def test_a_stream_tells_the_box_before_the_path_is_decoded(segmenter, monkeypatch):
    drawn = []
    stream = phrase_decoder.PhraseDecoder.stream

    def watched(self, *of):
        for now, is_done in stream(self, *of):
            drawn.append(now[0][0].tokens)
            yield now, is_done

    monkeypatch.setattr(phrase_decoder.PhraseDecoder, "stream", watched)
    events = segmenter.segment(IMAGES[1], PHRASES[0], stream=True)
    assert isinstance(next(events), BoxDrawn) and drawn == [3]
    assert isinstance(next(events), PathPiece) and drawn == [3, 11]
    list(events)
    assert drawn[-1] > 11


def test_references_stand_in_the_prompt_before_the_phrase(segmenter):
    point, box = (0.25, 0.5), (0.5, 0.25, 1.0, 0.75)
    paths = segmenter.policy.config.paths
    references = prompt_references([point, box])
    assert references == (point, (0.75, 0.5, 0.5, 0.5))
    ids, values = segmenter.policy.vocabulary.prompt("red star", references)
    coord, size = paths.coord_token, paths.size_token
    assert ids[: 3 + 5].tolist() == [*paths.prompt_prefix, coord, coord, coord, coord, size]
    np.testing.assert_allclose(values[3:8], [[0.25, 0], [0.5, 0], [0.75, 0], [0.5, 0], [0.5, 0.5]])
    plain = segmenter.segment(IMAGES[0], PHRASES[0])
    pointed = segmenter.segment(IMAGES[0], PHRASES[0], spatial_refs=[box])
    assert pointed.path != plain.path, "random weights read what they are given"


def test_boxes_are_corners_as_the_engine_takes_them():
    taken = prompt_references([(0.2, 0.1, 0.8, 0.9), (0.1, 0.1, 0.1, 0.9), (0.5, 0.5, 0.5, 0.5)])
    np.testing.assert_allclose(taken, [(0.5, 0.5, 0.6, 0.8), (0.1, 0.5, 0, 0.8), (0.5, 0.5, 0, 0)], atol=1e-12)


@pytest.mark.parametrize(
    "ref", [(1.2, 0.5), (-0.1, 0.5), (0.1, 0.2, 0.3), (0.5, 0.5, 0.4, 0.9), (0.1, 0.9, 0.4, 0.5), (float("nan"), 0.1),
            ("a", "b"), 0.5, (0.2, 0.2, 0.5, 1.01)], ids=str,
)  # fmt: skip
def test_references_outside_of_the_image_are_refused(segmenter, ref):
    with pytest.raises(UserError, match="spatial reference"):
        segmenter.segment(IMAGES[0], PHRASES[0], spatial_refs=[ref])


def test_what_does_not_fit_together_is_refused(segmenter):
    with pytest.raises(UserError, match="2 images and 3 phrases"):
        segmenter.segment(IMAGES[:2], PHRASES)
    with pytest.raises(UserError, match="stream goes with one image, got a list of 2"):
        segmenter.segment(IMAGES[:2], PHRASES[0], stream=True)
    with pytest.raises(UserError, match="spatial_refs goes with one image"):
        segmenter.segment(IMAGES[:2], PHRASES[0], spatial_refs=[(0.5, 0.5)])
    with pytest.raises(UserError, match="no phrase"):
        segmenter.segment(IMAGES[0], [])
    with pytest.raises(UserError, match="phrase must be text, got None"):
        segmenter.segment(IMAGES[0], None)
    with pytest.raises(UserError, match="image of type int: give a path"):
        segmenter.segment(7, PHRASES[0])
    with pytest.raises(UserError, match="X,Y or X_MIN"):
        reference_from_text("here")
    with pytest.raises(UserError, match="batch must be at least 1"):
        predict.Segmenter(segmenter.policy, segmenter.params, None, batch=0)
    assert segmenter.segment([], PHRASES[0]) == []
