"""The page in a real browser, with a segmenter that paints the left or the right half."""

import io
import json
import re

import numpy as np
import pytest
from browsers import another_visitor, open_page
from demo_pages import DONE, TOAST, begin, on_screen, segment, upload
from painting_segmenter import PaintingSegmenter
from PIL import Image

from moonseg_jax.demo.server import DemoServer
from moonseg_jax.demo.shared_model import SharedModel

pytest.importorskip("gradio", reason="Gradio is not installed")
pytest.importorskip("playwright", reason="Playwright is not installed")


@pytest.fixture(scope="module")
def segmenter():
    return PaintingSegmenter(seconds=0.1)


@pytest.fixture(scope="module")
def url(segmenter):
    with DemoServer(SharedModel(segmenter, "painted", "Knows left and right only.")) as server:
        yield server.url


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "grey.png"
    Image.new("RGB", (60, 40), (100, 100, 100)).save(file)
    return file


def shown(page):
    """The picture on the page as uint8[H, W, 3]."""
    content = page.request.get(page.get_attribute("#picture img", "src")).body()
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def changed(page):
    """Whether the photo is painted over: above left, below left, above right."""
    picture = shown(page)
    assert picture.shape == (320, 480, 3)
    return [bool((picture[at] != 100).any()) for at in ((80, 100), (240, 100), (80, 360))]


def choose(page, view):
    before = page.get_attribute("#picture img", "src")
    page.get_by_label(view, exact=True).check()
    page.wait_for_function("before => document.querySelector('#picture img').src != before", arg=before)


def download(page, kind):
    with page.expect_download() as waiting:
        page.click(f"#download-{kind}")
    return waiting.value


def test_a_photo_and_a_phrase_give_a_mask_views_and_files(url, photo):
    with open_page(url) as page:
        page.wait_for_selector("#ask")
        assert "painted. Knows left and right only." in page.inner_text("body")
        begin(page, photo)
        segment(page, "left")
        page.wait_for_function("document.querySelector('#path textarea').value.startsWith('M 0 0 L 1')")
        page.wait_for_function(DONE)
        assert re.match(r"“left”: refined, 25.0% of the photo, predicted IoU 0.75, [\d.]+ s", page.inner_text("#words"))
        assert changed(page) == [True, False, False]
        choose(page, "coarse mask")
        assert changed(page) == [True, True, False]
        choose(page, "photo")
        assert changed(page) == [False, False, False]
        choose(page, "path")
        assert not (shown(page) == 100).all()
        mask, path, answer = (download(page, kind) for kind in ("png", "svg", "json"))
        names = [file.suggested_filename for file in (mask, path, answer)]
        assert names == ["mask.png", "path.svg", "answer.json"]
        pixels = np.array(Image.open(mask.path()))
        assert pixels.shape == (40, 60) and (pixels[:20, :30] == 255).all() and pixels.sum() == 255 * 600
        drawn = path.path().read_text()
        assert 'width="60" height="40"' in drawn and "refined path of: left" in drawn
        told = json.loads(answer.path().read_text())
        assert (told["phrase"], told["status"], told["coco"]["area"]) == ("left", "refined", 600)
        assert page.console_errors == [] and page.foreign_requests() == []


def test_clicks_make_a_point_and_a_box(url, photo, segmenter):
    with open_page(url) as page:
        begin(page, photo)
        for x, y in ((0.25, 0.25), (0.75, 0.5)):
            before = page.get_attribute("#picture img", "src")
            page.mouse.click(*on_screen(page, x, y))
            page.wait_for_function("before => document.querySelector('#picture img').src != before", arg=before)
        segment(page, "right")
        page.wait_for_function(DONE)
        ((x0, y0, x1, y1),) = segmenter.clicks[-1]
        np.testing.assert_allclose([x0, y0, x1, y1], [0.25, 0.25, 0.75, 0.5], atol=0.01)
        page.click("#forget")
        segment(page, "left")
        page.wait_for_function(f"!({DONE})")
        page.wait_for_function(DONE)
        assert segmenter.clicks[-1] == ()
        assert page.console_errors == []


def test_examples_bring_photo_and_phrase(url):
    with open_page(url) as page:
        page.click("#examples button:has(img) >> nth=1")
        page.wait_for_selector("#picture img")
        assert page.input_value("#phrase input, #phrase textarea").startswith("the ")
        assert shown(page).shape == (480, 480, 3)
        assert page.console_errors == [] and page.foreign_requests() == []


def test_what_cannot_be_used_is_told_on_the_page(url, photo, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    Image.new("1", (9000, 8000)).save(tmp_path / "wide.png")
    with (tmp_path / "heavy.png").open("wb") as heavy:
        heavy.truncate((64 << 20) + 1)
    with open_page(url) as page:
        for name, said in (
            ("notes.png", "image 'notes.png': not a readable image"),
            ("wide.png", "image 'wide.png'"),
            ("heavy.png", "exceed the maximum allowed size of 64"),
        ):
            page.reload()
            page.wait_for_selector("#upload input[type=file]", state="attached")
            upload(page, tmp_path / name)
            told = page.wait_for_selector(TOAST).inner_text()
            assert said in told and "Traceback" not in told and str(tmp_path) not in told
        page.reload()
        page.click("#ask")
        assert "there is no photo yet" in page.wait_for_selector(TOAST).inner_text()
        page.reload()
        begin(page, photo)
        segment(page, "above")
        told = page.wait_for_selector(TOAST).inner_text()
        assert "the vocabulary cannot say 'above' <b>" in told, "what a visitor wrote is no markup"
        assert page.foreign_requests() == []


def test_what_is_asked_while_an_answer_is_drawn_comes_after_it(url, photo):
    with open_page(url) as page:
        begin(page, photo)
        segment(page, "left")
        page.wait_for_function("document.querySelector('#path textarea').value.startsWith('M 0 0')")
        segment(page, "right")
        page.wait_for_function("document.querySelector('#words').innerText.includes('“right”: refined')")
        assert changed(page) == [False, False, True]


def test_two_visitors_at_once_get_their_own_answers(url, photo):
    with open_page(url) as one, another_visitor(one, url) as other:
        for page in (one, other):
            begin(page, photo)
        for page, phrase in ((one, "left"), (other, "right")):
            segment(page, phrase)
        for page, expected in ((one, [True, False, False]), (other, [False, False, True])):
            page.wait_for_function(DONE)
            assert changed(page) == expected
        told = [json.loads(download(page, "json").path().read_text())["phrase"] for page in (one, other)]
        assert told == ["left", "right"]
        assert one.console_errors == other.console_errors == []
