"""A box dragged over the photo, in a real browser: what reaches the model is what was dragged."""

import contextlib

import numpy as np
import pytest
from browsers import open_page
from demo_pages import DONE, TOAST, WHERE, begin, on_screen, photo_on_screen, segment
from painting_segmenter import PaintingSegmenter
from PIL import Image

from moonseg_jax.demo.server import DemoServer
from moonseg_jax.demo.shared_model import SharedModel

pytest.importorskip("gradio", reason="Gradio is not installed")
pytest.importorskip("playwright", reason="Playwright is not installed")
SMALL, TALL = (60, 40), (300, 400)
"""Shown with bars all around, and with bars left and right."""


@pytest.fixture(scope="module")
def segmenter():
    return PaintingSegmenter()


@pytest.fixture(scope="module")
def visitor(segmenter):
    with DemoServer(SharedModel(segmenter, "painted", "")) as server, open_page(server.url) as page:
        yield page


@pytest.fixture
def small(visitor, tmp_path):
    yield from with_photo(visitor, tmp_path, SMALL)


@pytest.fixture
def tall(visitor, tmp_path):
    yield from with_photo(visitor, tmp_path, TALL)


def with_photo(page, folder, size):
    file = folder / "grey.png"
    Image.new("RGB", size, (100, 100, 100)).save(file)
    page.reload()
    page.wait_for_selector("#upload input[type=file]", state="attached")
    begin(page, file)
    yield page
    assert page.console_errors == [] and page.foreign_requests() == []


@contextlib.contextmanager
def redrawn(page):
    before = page.get_attribute("#picture img", "src")
    yield
    page.wait_for_function("before => document.querySelector('#picture img').src != before", arg=before)


def press_and_move(page, start, end):
    first, last = on_screen(page, *start), on_screen(page, *end)
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=4)


def reached(page, segmenter):
    """What the model is given with the next question: all values of its point or box."""
    asked = len(segmenter.clicks)
    segment(page, "left")
    while len(segmenter.clicks) == asked:
        page.wait_for_timeout(50)
    page.wait_for_function(DONE)
    return np.array(segmenter.clicks[-1]).reshape(-1)


@pytest.mark.parametrize("size", ["small", "tall"])
def test_the_box_that_reaches_the_model_has_the_corners_dragged(request, segmenter, size):
    page = request.getfixturevalue(size)
    left, top, width, height = photo_on_screen(page)
    pixel = np.array([1 / width, 1 / height] * 2)
    for start, end, box in (
        ((0.2, 0.1), (0.7, 0.6), (0.2, 0.1, 0.7, 0.6)),
        ((0.9, 0.8), (0.3, 0.5), (0.3, 0.5, 0.9, 0.8)),
        ((0.5, 0.25), (1.4, -0.4), (0.5, 0, 1, 0.25)),
    ):
        press_and_move(page, start, end)
        band = page.locator("#drag-band").bounding_box()
        corner = left + box[0] * width, top + box[1] * height
        extent = (box[2] - box[0]) * width, (box[3] - box[1]) * height
        np.testing.assert_allclose([band["x"], band["y"]], corner, atol=1)
        np.testing.assert_allclose([band["width"], band["height"]], extent, atol=1)
        with redrawn(page):
            page.mouse.up()
        assert page.locator("#drag-band").count() == 0
        assert (np.abs(reached(page, segmenter) - box) <= pixel).all(), "in pixels of the screen"


def test_a_press_that_hardly_moves_is_a_point_and_a_drag_leaves_none(small, segmenter):
    page = small
    x, y = on_screen(page, 0.5, 0.5)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 2, y + 2)
    with redrawn(page):
        page.mouse.up()
    np.testing.assert_allclose(reached(page, segmenter), [0.5, 0.5], atol=0.01)
    press_and_move(page, (0.1, 0.1), (0.3, 0.3))
    with redrawn(page):
        page.mouse.up()
    page.wait_for_timeout(300)
    said = [float(value) for value in page.input_value(WHERE).split(",")]
    np.testing.assert_allclose(said, [0.1, 0.1, 0.3, 0.3], atol=0.005, err_msg="the end of a drag is no click")
    with redrawn(page):
        page.mouse.click(*on_screen(page, 0.75, 0.25))
    np.testing.assert_allclose(reached(page, segmenter), [0.75, 0.25], atol=0.01)


def test_escape_and_drags_beside_the_photo_change_nothing(small):
    page = small
    press_and_move(page, (0.2, 0.2), (0.6, 0.6))
    page.keyboard.press("Escape")
    assert page.locator("#drag-band").count() == 0
    page.mouse.up()
    press_and_move(page, (-0.2, 0.2), (-0.1, 0.6))
    page.mouse.up()
    page.wait_for_timeout(300)
    assert page.input_value(WHERE) == ""


def test_a_finger_drags_a_box(tall, segmenter):
    page = tall
    touch = page.context.new_cdp_session(page)
    places = [on_screen(page, at, at) for at in (0.2, 0.4, 0.6)]
    kinds = ("touchStart", "touchMove", "touchMove")
    for kind, (x, y) in zip(kinds, places, strict=True):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    assert page.locator("#drag-band").count() == 1
    with redrawn(page):
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    np.testing.assert_allclose(reached(page, segmenter), [0.2, 0.2, 0.6, 0.6], atol=0.005)


def test_the_keyboard_says_where_to_look_too(small, segmenter):
    page = small
    page.focus(WHERE)
    with redrawn(page):
        page.keyboard.type("0.1, 0.2, 0.5, 0.75")
    assert reached(page, segmenter).tolist() == [0.1, 0.2, 0.5, 0.75]
    page.fill(WHERE, "0.1, 7")
    segment(page, "left")
    told = page.wait_for_selector(f"{TOAST}:has-text('spatial')").inner_text()
    assert "give (x, y) or (x_min, y_min, x_max, y_max) inside the image" in told
    page.click("#forget")
    page.wait_for_function("!document.querySelector('#where input, #where textarea').value")
    assert reached(page, segmenter).size == 0
