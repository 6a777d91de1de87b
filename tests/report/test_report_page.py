import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from moonseg_jax.report.content import Curve, CurveGroup, GalleryItem, GallerySection, Report, Series, Table
from moonseg_jax.report.page import page, write_report
from moonseg_jax.report.scene import overlay_indices, scene_card
from moonseg_jax.report.selection import worst_typical_best

HOSTILE = '</style><script>alert(\'x\')</script><img src="https://example.org/x.png" onerror="x">'


def scene(**changes):
    truth = np.zeros((8, 12), bool)
    truth[2:6, 3:9] = True
    settings = dict(
        image=np.full((8, 12, 3), 90, np.uint8),
        phrase="the red star",
        polygons=(np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]]),),
        coarse=truth.copy(),
        refined=truth.copy(),
        truth=truth,
        iou_coarse=0.5,
        iou_refined=0.75,
        status="refined",
    )
    return GalleryItem(**{**settings, **changes})


def report(text="plain"):
    series = Series(name=text, steps=np.arange(3), values=np.arange(3.0))
    return Report(
        title=text,
        subtitle=text,
        summary=Table(title=text, columns=("", text), rows=((text, text),), note=text),
        curves=(CurveGroup(title=text, curves=(Curve(title=text, series=(series, series)),)),),
        gallery=(GallerySection(title=text, note=text, items=(scene(phrase=text, status=text),)),),
        baselines=Table(title=text, columns=("", text), rows=((text, text),)),
        facts=((text, text),),
        command=text,
        config=text,
    )


class Tags(HTMLParser):
    """Collects start tags with their attributes and checks that tags close in order."""

    VOID = ("meta", "img", "line", "path", "circle")

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(html):
    parser = Tags()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.found


def test_hostile_text_stays_text_everywhere():
    hostile, plain = tags(page(report(HOSTILE))), tags(page(report()))
    assert [tag for tag, _ in hostile] == [tag for tag, _ in plain]
    assert "script" not in {tag for tag, _ in hostile}
    assert not [name for _, attributes in hostile for name in attributes if name.startswith("on")]


def test_nothing_is_fetched_and_the_browser_is_told_to_refuse():
    html = page(report())
    for tag, attributes in tags(html):
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), (tag, name, value)
        for target in re.findall(r"url\(([^)]*)\)", attributes.get("style") or ""):
            assert target.startswith("data:image/png;base64,")
    assert "@import" not in html and "url(http" not in html and "://" not in html
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html


def test_light_and_dark_follow_the_reader():
    assert "@media (prefers-color-scheme:dark)" in page(report())


def test_parts_that_are_missing_leave_no_empty_sections(tmp_path):
    path = write_report(Report(title="t", subtitle="s"), tmp_path / "report.html")
    assert "<section" not in path.read_text(encoding="utf-8")


def test_a_scene_shows_its_path_with_every_vertex_in_percent_of_the_image():
    card = scene_card(scene())
    assert 'd="M25.00 25.00 L75.00 25.00 L50.00 75.00Z"' in card
    assert 'd="M25.00 25.00h0M75.00 25.00h0M50.00 75.00h0"' in card
    assert "IoU 0.50 → <b>0.75</b>" in card and "+0.25" in card


def test_every_mask_says_what_it_is_to_those_who_cannot_see_it():
    card = scene_card(scene())
    for name in ("coarse mask", "refined mask", "true mask"):
        assert f'alt="{name} over the photo"' in card


def test_an_empty_path_and_a_missing_refinement_are_said():
    nothing = np.zeros((8, 12), bool)
    card = scene_card(
        scene(polygons=(), coarse=nothing, refined=None, iou_coarse=0.0, iou_refined=None, status="empty_path")
    )
    for said in ("empty path", "empty mask", "not refined", "empty_path", "IoU <b>0.00</b>"):
        assert said in card


def test_overlays_tell_right_from_too_much_and_missed():
    mask, truth = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    np.testing.assert_array_equal(overlay_indices(mask, truth), [[1, 2, 3, 0]])


def pictures(html):
    for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html):
        yield Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_keep_small_images_whole_and_reduce_large_ones():
    assert [picture.size for picture in pictures(scene_card(scene()))] == [(12, 8)] * 4
    large = np.zeros((500, 768), bool)
    card = scene_card(scene(image=np.zeros((500, 768, 3), np.uint8), coarse=large, refined=large, truth=large))
    assert {picture.size for picture in pictures(card)} == {(384, 250)}


def test_an_overlay_shows_the_photo_through_its_colours():
    overlay = list(pictures(scene_card(scene())))[1].convert("RGBA")
    assert overlay.getpixel((4, 3))[:3] == (45, 212, 191) and 0 < overlay.getpixel((4, 3))[3] < 255
    assert 0 < overlay.getpixel((0, 0))[3] < 255


def ious(sections):
    return {section.title: [item.iou for item in section.items] for section in sections}


def test_the_gallery_takes_both_ends_and_the_middle_by_final_iou():
    items = [scene(iou_refined=None, iou_coarse=k / 10) for k in (3, 9, 0, 5, 7, 1, 8, 2, 6, 4)]
    assert ious(worst_typical_best(items, 2)) == {
        "Worst": [0.0, 0.1],
        "Typical": [0.4, 0.5],
        "Best": [0.9, 0.8],
    }


def test_no_scene_appears_twice_however_few_there_are():
    for count in range(8):
        items = [scene(iou_refined=k / 10) for k in range(count)]
        shown = [iou for values in ious(worst_typical_best(items, 3)).values() for iou in values]
        assert sorted(shown) == sorted(set(shown)) and len(shown) == count
