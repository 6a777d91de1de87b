"""What a visitor has before them, and the pictures drawn of it."""

import numpy as np
import pytest
from micro_segmenter import micro_segmenter
from painting_segmenter import PaintingSegmenter
from PIL import Image

from moonseg_jax.demo.drawing import CLICK_COLOUR, PATH_COLOUR, picture, picture_so_far, polygons_so_far, views_of
from moonseg_jax.demo.examples import examples
from moonseg_jax.demo.shared_model import SharedModel
from moonseg_jax.demo.turn import COMPILING, LOOKING, shown_turn
from moonseg_jax.demo.visit import Visit, open_photo
from moonseg_jax.errors import UserError
from moonseg_jax.streaming import Finished

GREY = np.full((40, 60, 3), 100, np.uint8)


def painted(phrase="left", **of):
    model = SharedModel(PaintingSegmenter(), "none", "")
    return list(shown_turn(model, Visit(photo=GREY, **of), phrase))


def test_clicks_are_a_point_then_a_box_then_a_point_again():
    first = Visit(photo=GREY).clicked((0.75, 0.5))
    assert first.references == ((0.75, 0.5),)
    box = first.clicked((0.25, 1.5))
    assert box.references == ((0.25, 0.5, 0.75, 1.0),), "outside is moved to the border"
    assert box.clicked((0.1, 0.2)).references == ((0.1, 0.2),)
    assert first.clicked((0.75, 0.9)).references == ((0.75, 0.9),), "a box needs an inside"


def test_where_to_look_can_be_said_in_numbers():
    point = Visit(photo=GREY).pointed(" 0.25,0.5 ")
    assert point.references == ((0.25, 0.5),) and point.where == "0.2500, 0.5000"
    box = point.pointed("0.1, 0.2, 0.5, 0.75")
    assert box.references == ((0.1, 0.2, 0.5, 0.75),) and box.where == "0.1000, 0.2000, 0.5000, 0.7500"
    clicked = Visit(photo=GREY).clicked((1 / 3, 2 / 3))
    assert clicked.pointed(clicked.where) is clicked, "what was clicked stays exact"
    assert box.pointed(" ").references == ()
    for said in ("0.1", "here", "0.5, 0.5, 0.2, 0.9", "0.1, 7"):
        with pytest.raises(UserError, match="spatial reference"):
            box.pointed(said)


def test_a_file_that_is_no_photo_is_told_by_its_name_alone(tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    with pytest.raises(UserError, match=r"^image 'notes\.png': not a readable image"):
        open_photo(file)
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"^image 'huge\.png'.*64000000"):
        open_photo(tmp_path / "huge.png")


def test_photos_are_turned_as_they_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    assert open_photo(tmp_path / "turned.png").photo.shape == (60, 40, 3)


def test_a_turn_shows_box_and_path_as_they_come_and_ends_with_the_refined_mask():
    moments = painted()
    assert [moment.words for moment in moments[:2]] == [COMPILING, "The box is there …"]
    assert [moment.path for moment in moments[2:5]] == ["M 0 0", "M 0 0 L 1 0", "M 0 0 L 1 0 L 1 1"]
    assert moments[-1].words.startswith("“left”: refined, 25.0% of the photo, predicted IoU 0.75")
    assert all(moment.visit.answer is None for moment in moments[:-1])
    reds = [int((moment.picture == PATH_COLOUR).all(-1).sum()) for moment in moments[:-2]]
    assert reds[:2] == [0, 0] and reds[2:] == sorted(set(reds[2:])), "every piece adds to the outline"


def test_the_second_turn_does_not_speak_of_compiling():
    model = SharedModel(PaintingSegmenter(), "none", "")
    words = [next(iter(list(shown_turn(model, Visit(photo=GREY), "left")))).words for _ in range(2)]
    assert words == [COMPILING, LOOKING]


def test_views_show_what_they_say():
    visit = painted()[-1].visit
    assert views_of(visit) == ["photo", "path", "coarse mask", "refined mask"]
    shown = {view: picture(visit, view) for view in views_of(visit)}
    assert shown["photo"].shape == (320, 480, 3), "small photos are enlarged by whole factors: 40 x 60, 8 times"
    changed = {view: (shown[view] != 100).any(-1) for view in shown}
    assert [changed["photo"].any(), changed["path"].any()] == [False, True]
    upper, lower, right = (80, 100), (240, 100), (80, 360)
    assert [changed["coarse mask"][at] for at in (upper, lower, right)] == [True, True, False]
    assert [changed["refined mask"][at] for at in (upper, lower, right)] == [True, False, False]


def test_the_truth_is_shown_for_the_phrase_it_belongs_to_only():
    known = {"known_phrase": "left", "truth": np.eye(40, 60, dtype=bool)}
    left, right = painted("left", **known)[-1].visit, painted("right", **known)[-1].visit
    assert views_of(left)[-1] == "ground truth" and "ground truth" not in views_of(right)
    assert not (picture(left, "ground truth") == picture(left, "photo")).all()
    assert (picture(right, "ground truth") == picture(right, "photo")).all()


def test_clicks_are_drawn_where_they_were_made():
    visit = Visit(photo=GREY).clicked((0.25, 0.25)).clicked((0.75, 0.75))
    rows, columns = np.nonzero((picture(visit, "photo") == CLICK_COLOUR).all(-1))
    assert np.allclose([rows.min(), rows.max(), columns.min(), columns.max()], [80, 240, 120, 360], atol=2)


def test_an_unfinished_path_lies_in_its_box():
    (done, begun) = polygons_so_far((0.5, 0.5, 0.5, 1.0), "M 0 0 L 1 0 L 1 1 Z M 0.5 0.5")
    assert done.tolist() == [[0.25, 0.0], [0.75, 0.0], [0.75, 1.0]] and begun.tolist() == [[0.5, 0.5]]
    assert picture_so_far(Visit(photo=GREY), (0.5, 0.5, 0.5, 1.0), "").shape == (320, 480, 3)


def test_the_pieces_of_a_real_model_draw_what_it_answers():
    moments = list(shown_turn(SharedModel(micro_segmenter(), "micro", ""), Visit(photo=GREY), "the red star"))
    answer = moments[-1].visit.answer
    assert moments[-1].path == answer.path
    drawn = polygons_so_far(answer.drawn_box, moments[-1].path)
    assert len(drawn) == len(answer.polygons)
    for ours, theirs in zip(drawn, answer.polygons, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=6e-4, err_msg="the text has three decimals")


def test_visitors_take_turns_within_an_answer():
    segmenter = PaintingSegmenter()
    model = SharedModel(segmenter, "none", "")
    first = model.answer(Visit(photo=GREY, clicks=((0.1, 0.2),)), "left")
    next(first)
    other = list(model.answer(Visit(photo=GREY), " right "))
    assert isinstance(other[-1], Finished) and other[-1].segmentation.phrase == "right"
    assert list(first)[-1].segmentation.phrase == "left"
    assert segmenter.clicks == [((0.1, 0.2),), ()]


@pytest.mark.parametrize(("photo", "phrase", "said"), [(None, "left", "no photo yet"), (GREY, "  ", "say what")])
def test_what_is_missing_is_told(photo, phrase, said):
    with pytest.raises(UserError, match=said):
        list(shown_turn(SharedModel(PaintingSegmenter(), "none", ""), Visit(photo=photo), phrase))


def test_examples_are_held_out_scenes_with_true_masks():
    shown = examples()
    assert len({one.known_phrase for one in shown}) > 1 and all(one.photo.shape == (96, 96, 3) for one in shown)
    assert all(0 < one.truth.mean() < 0.5 for one in shown)
