"""The page in a real browser: sorted, filtered, enlarged and read out by keyboard, on a phone, and without a script."""

import re

import numpy as np
import pytest
from browsers import another_visitor, open_page
from test_report_page import group, report, scene

from moonseg_jax.gallery.scenes import GallerySection
from moonseg_jax.report.content import Curve, CurveGroup, CurvePart, Groups, PairedGallery, ScenePair, Series, TimeSplit
from moonseg_jax.report.page import write_report

LONG = "the-second-largest-of-all-" * 6
SCENES = {"red star": (0.5, 0.9), "blue disc": (0.6, 0.3), "red bar": (0.2, None), LONG: (0.1, 0.15)}
"""Phrase → coarse and refined IoU, in the order in which they are stored."""
WORST_FIRST = [LONG, "red bar", "blue disc", "red star"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page with all sections, names and words longer than a phone is wide."""
    items = tuple(
        scene(phrase=phrase, iou_coarse=coarse, iou_refined=refined) for phrase, (coarse, refined) in SCENES.items()
    )
    steps = np.arange(0, 50, 10)
    curve = Curve(title=LONG, metric=LONG, series=(Series(name="reward", steps=steps, values=steps / 100),))
    page = report(
        LONG,
        gallery=(GallerySection(title="Worst", note="n", items=items),),
        groups=(Groups(title="RL", note="n", groups=(group(LONG), group("flat", flat=True))),),
        curves=(CurveGroup(title="RL", parts=(CurvePart(title="Reward", curves=(curve,)),)),),
        time=(TimeSplit(title="RL", parts=("learn", "rest"), steps=np.arange(1, 90), seconds=np.ones((89, 2))),),
    )
    return write_report(page, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def opened(path):
    with open_page(path.resolve().as_uri()) as page:
        yield page


@pytest.fixture
def page(opened):
    opened.reload()
    return opened


def phrases(page):
    return page.locator("#gallery article:visible h3").all_text_contents()


def said(page):
    return page.locator("#gallery output").text_content()


def tab_to(page, selector):
    """The focus on an element, by the Tab key alone."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def test_worst_scenes_come_first_and_sorting_by_gain_puts_those_without_one_last(page):
    assert phrases(page) == WORST_FIRST and said(page) == "all 4 shown"
    for order, expected in (
        ("gain up", ["blue disc", LONG, "red star", "red bar"]),
        ("gain down", ["red star", LONG, "blue disc", "red bar"]),
        ("iou down", WORST_FIRST[::-1]),
        ("place up", list(SCENES)),
        ("iou up", WORST_FIRST),
    ):
        page.select_option("[name=sort]", order)
        assert phrases(page) == expected, order
    page.select_option("[name=sort]", "iou down")
    ious = [float(card.get_attribute("data-iou")) for card in page.locator("#gallery article").all()]
    assert ious == sorted(ious, reverse=True) and len(set(ious)) == 4
    assert page.console_errors == [] and page.foreign_requests() == []


def test_the_keyboard_alone_sorts_filters_and_enlarges(page):
    tab_to(page, "[name=sort]")
    page.keyboard.press("ArrowDown")
    assert phrases(page) == WORST_FIRST[::-1]
    tab_to(page, "[name=words]")
    page.keyboard.type("RED")
    assert phrases(page) == ["red star", "red bar"] and said(page) == "2 of 4 shown"
    tab_to(page, "#gallery .zoom")
    page.keyboard.press("Enter")
    enlarged = page.locator("dialog[open] article")
    assert enlarged.locator("h3").text_content() == "red star"
    wide = [locator.bounding_box()["width"] for locator in (enlarged, page.locator("#gallery article:visible").first)]
    assert wide[0] > 1.5 * wide[1]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.matches('#gallery .zoom')")
    tab_to(page, ".chart svg")
    readout = page.locator(".chart .readout").first
    assert readout.text_content() == "step 40: 0.4"
    for key, expected in (("ArrowLeft", "step 30: 0.3"), ("Home", "step 0: 0"), ("ArrowRight", "step 10: 0.1")):
        page.keyboard.press(key)
        assert readout.text_content() == expected
    assert page.console_errors == []


def test_size_and_words_that_fit_nothing_leave_nothing_and_say_so(page):
    page.select_option("[name=size]", "small")
    assert phrases(page) == [] and said(page) == "0 of 4 shown"
    page.select_option("[name=size]", "large")
    assert len(phrases(page)) == 4


def test_the_pointer_reads_a_chart(page):
    drawing = page.locator(".chart svg[tabindex]").first
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    assert page.locator(".chart .readout").first.text_content() == "step 20: 0.2"
    page.mouse.move(1, 1)
    assert page.locator(".chart .readout").first.text_content() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_in_either_scheme(page, scheme):
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
    assert (light[0] > light[1]) == (scheme == "light") and abs(light[0] - light[1]) > 500
    page.locator("#gallery .zoom").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.console_errors == [] and page.foreign_requests() == []
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


def test_without_a_script_everything_is_there_and_nothing_is_dead(opened, path):
    context = opened.context.browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(path.resolve().as_uri())
    assert phrases(plain) == WORST_FIRST
    assert plain.locator("select:visible, input:visible, button:visible").count() == 0
    assert plain.locator("#groups .advantage:visible").count() == 6
    plain.locator(".chart summary").first.click()
    assert plain.locator(".chart td:visible").first.text_content() == "0"
    context.close()


def test_a_script_that_is_not_ours_is_refused(opened, path, tmp_path):
    changed = path.read_text(encoding="utf-8").replace("<main>", "<main><script>document.title='x'</script>")
    file = tmp_path / "changed.html"
    file.write_text(changed, encoding="utf-8")
    with another_visitor(opened, file.resolve().as_uri()) as other:
        assert other.title() == LONG and phrases(other) == WORST_FIRST
        assert [said for said in other.console_errors if "Content Security Policy" in said]


def test_two_runs_are_sorted_by_their_difference(opened, tmp_path):
    pairs = tuple(
        ScenePair(first=scene(phrase=phrase, iou_refined=one), second=scene(phrase=phrase, iou_refined=other))
        for phrase, one, other in (("a", 0.5, 0.6), ("b", 0.9, 0.2), ("c", 0.1, 0.8))
    )
    paired = PairedGallery(names=("first", "second"), note="n", pairs=pairs)
    file = write_report(report(gallery=(), paired=paired), tmp_path / "both.html")
    with another_visitor(opened, file.resolve().as_uri()) as other:
        assert phrases(other) == ["b", "a", "c"]
        for order, expected in (("first up", "cab"), ("difference down", "cab"), ("second up", "bac")):
            other.select_option("[name=sort]", order)
            assert phrases(other) == list(expected), order
        assert other.console_errors == [] and other.foreign_requests() == []
