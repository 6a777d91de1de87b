import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from moonseg_jax.gallery.scenes import GalleryItem, GallerySection
from moonseg_jax.gallery.selection import with_largest_changes, worst_typical_best
from moonseg_jax.report.content import (
    Curve,
    CurveGroup,
    CurvePart,
    Groups,
    GroupSample,
    PairedGallery,
    Report,
    SampleGroup,
    ScenePair,
    Series,
    Table,
    TimeSplit,
)
from moonseg_jax.report.page import document, page, write_report
from moonseg_jax.report.scene import overlay_indices, scene_card

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


def group(text="plain", **changes):
    truth = scene().truth
    samples = tuple(
        GroupSample(
            polygons=(np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]]),), mask=truth, iou=iou, reward=iou,
            advantage=advantage, tokens=9, remark=text,
        )
        for iou, advantage in ((0.75, 0.5), (0.5, 0.0), (0.25, -0.25))
    )  # fmt: skip
    settings = dict(photo=scene().image, phrase=text, truth=truth, samples=samples, flat=False)
    return SampleGroup(**{**settings, **changes})


def report(text="plain", **changes):
    series = Series(name=text, steps=np.arange(3), values=np.arange(3.0))
    curve = Curve(title=text, series=(series, series), metric=text + "_")
    table = Table(title=text, columns=("", text), rows=((text, text),), note=text)
    split = TimeSplit(
        title=text, parts=(text, "rest"), steps=np.array([1, 2]), seconds=np.array([[3.0, 1.0], [1.0, 0.0]]), note=text
    )
    settings = dict(
        title=text, subtitle=text, summary=(table,),
        curves=(CurveGroup(title=text, parts=(CurvePart(title=text, curves=(curve,)),)),),
        gallery=(GallerySection(title=text, note=text, items=(scene(phrase=text, status=text),)),),
        groups=(Groups(title=text, note=text, groups=(group(text),)),), time=(split,),
        baselines=table, settings=table, facts=((text, text),), command=text, config=text,
    )  # fmt: skip
    return Report(**{**settings, **changes})


def side_by_side(text="plain"):
    item = scene(phrase=text, status=text)
    paired = PairedGallery(names=(text, text + "2"), note=text, pairs=(ScenePair(first=item, second=item),))
    return report(text, gallery=(), paired=paired)


class Tags(HTMLParser):
    """Collects start tags with their attributes and checks that tags close in order."""

    VOID = ("meta", "img", "line", "path", "circle", "rect", "br", "input")

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


@pytest.mark.parametrize("make", [report, side_by_side])
def test_hostile_text_stays_text_everywhere(make):
    hostile, plain = tags(page(make(HOSTILE))), tags(page(make()))
    assert [tag for tag, _ in hostile] == [tag for tag, _ in plain]
    assert [tag for tag, _ in hostile].count("script") == 1
    assert not [name for _, attributes in hostile for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("make", [report, side_by_side])
def test_nothing_is_fetched_and_the_browser_is_told_to_refuse(make):
    html = page(make())
    for tag, attributes in tags(html):
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), (tag, name, value)
        for target in re.findall(r"url\(([^)]*)\)", attributes.get("style") or ""):
            assert target.startswith("data:image/png;base64,")
    assert "@import" not in html and "url(http" not in html and "://" not in html


def policy(html):
    (found,) = [a["content"] for _, a in tags(html) if a.get("http-equiv") == "Content-Security-Policy"]
    return found


def test_the_browser_may_run_this_script_and_no_other():
    html = page(report())
    (script,) = re.findall("<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy(html) == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )


def test_pages_that_need_no_script_may_run_none():
    html = document("t", "s", [("a", "A", "<p>a</p>")])
    assert "<script" not in html and "script-src" not in policy(html) and policy(html).startswith("default-src 'none'")


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
    assert [picture.size for picture in pictures(scene_card(scene()))] == [(12, 8)] * 4  # The photo is there once.
    large = np.zeros((500, 768), bool)
    card = scene_card(scene(image=np.zeros((500, 768, 3), np.uint8), coarse=large, refined=large, truth=large))
    assert {picture.size for picture in pictures(card)} == {(384, 250)}


def test_photographs_do_not_fill_the_page_and_small_images_stay_exact():
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 40, (480, 640, 3)) + np.arange(640)[None, :, None] // 4
    truth = np.zeros((480, 640), bool)
    card = scene_card(scene(image=grain.astype(np.uint8), coarse=truth, refined=truth, truth=truth))
    assert "--photo:url(data:image/jpeg;base64," in card and len(card) < 70_000
    small = grain[:96, :128].astype(np.uint8)
    (photo, *_) = pictures(
        scene_card(scene(image=small, coarse=truth[:96, :128], refined=None, truth=truth[:96, :128]))
    )
    np.testing.assert_array_equal(np.asarray(photo), small)


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


def test_the_largest_changes_of_the_refiner_come_beside_what_was_chosen():
    items = [scene(iou_coarse=0.5, iou_refined=0.5 + k / 100) for k in (-3, 20, 0, -9, 5, 7, -1)]
    items.append(scene(iou_coarse=0.1, iou_refined=None))
    chosen = (GallerySection(title="Worst", note="", items=(items[3],)),)
    _, lost, gained = with_largest_changes(chosen, items, 2)
    assert (lost.title, [items.index(item) for item in lost.items]) == ("Lost", [0, 6])
    assert (gained.title, [items.index(item) for item in gained.items]) == ("Gained", [1, 5])


def order_of(html, name):
    return [float(value) if value else None for value in re.findall(rf'data-{name}="([^"]*)"', html)]


def test_all_scenes_are_there_worst_first_whatever_section_they_were_stored_in():
    best, worst = scene(iou_refined=0.9), scene(iou_refined=None, iou_coarse=0.2)
    sections = tuple(GallerySection(title=t, note="", items=(i,)) for t, i in (("Best", best), ("Worst", worst)))
    html = page(report(gallery=sections, groups=()))
    assert order_of(html, "iou") == [0.2, 0.9]
    assert order_of(html, "gain") == [None, 0.4]
    assert order_of(html, "place") == [1, 0]


def test_size_of_an_object_is_that_of_the_breakdown():
    for share, size in ((0.0, "none"), (0.003, "small"), (0.0034, "medium"), (0.031, "large")):
        truth = np.arange(10_000).reshape(100, 100) < 10_000 * share
        assert f'data-size="{size}"' in scene_card(scene(truth=truth, coarse=truth, refined=truth)), share


def test_a_group_says_the_sign_of_an_advantage_in_words_and_by_a_side():
    html = page(report(gallery=(), groups=(Groups(title="RL", note="n", groups=(group(),)),)))
    assert '<span class="advantage plus">▲ +0.500</span>' in html
    assert '<i class="plus" style="width:50.0%">' in html  # The largest advantage fills its half of the bar.
    assert '<span class="advantage minus">▼ -0.250</span>' in html and '<i class="minus" style="width:25.0%">' in html
    assert '<span class="advantage">advantage 0</span>' in html
    assert "IoU 0.25 to 0.75, mean <b>0.50</b>, standard deviation 0.204" in html and "filtered out" not in html
    flat = page(report(groups=(Groups(title="RL", note="n", groups=(group(flat=True),)),)))
    assert "filtered out: all samples have the same IoU" in flat


def test_the_time_of_a_stage_is_a_bar_a_chart_and_a_table():
    html = page(report("learn"))
    assert 'aria-label="learn 80%, rest 20%"' in html
    heights = [float(h) for h in re.findall(r'<rect class="p\d" [^>]*height="([^"]*)"', html)]
    assert heights == [75, 25, 100]
    assert "<td>4 s</td><td>80.0%</td><td>100.0%</td><td>2.000</td>" in html
