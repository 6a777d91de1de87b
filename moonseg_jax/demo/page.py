"""The page: what is on it, and what happens when it is touched."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from moonseg_jax.demo.downloads import NAMES, write_downloads
from moonseg_jax.demo.drawing import View, picture, views_of
from moonseg_jax.demo.examples import examples
from moonseg_jax.demo.shared_model import SharedModel
from moonseg_jax.demo.turn import shown_turn
from moonseg_jax.demo.visit import Visit, open_photo
from moonseg_jax.errors import UserError
from moonseg_jax.images import ImageLimits

AT_ONCE = 2
"""Answers in hand at a time; further visitors wait, and see their place in the queue."""
KEPT_SECONDS = 3600
"""How long uploads and downloads lie, at least."""
HOW_TO_POINT = (
    "Click into the photo to point at something, or drag a box around it. A second click, elsewhere, makes a box of "
    "both, too; a third one starts anew."
)
WHERE = "Where to look: x, y or x_min, y_min, x_max, y_max, from 0 to 1"
DRAG_BOX = Path(__file__).with_name("drag_box.js")
STYLE = """
#picture img { cursor: crosshair; touch-action: pinch-zoom; user-select: none; }
#drag-band {
  position: fixed; z-index: 10000; pointer-events: none; box-sizing: border-box;
  border: 2px dashed #fff; outline: 2px solid #ff5ab4; background: rgba(255, 90, 180, 0.15);
}
"""
FONTS = ("system-ui", "sans-serif")


def theme() -> gr.themes.Base:
    """Letters of the visitor's own machine."""
    return gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"))


def page(model: SharedModel, folder: Path) -> gr.Blocks:
    """Builds the page.

    Args:
      model: answers.
      folder: for the files of answers.
    """
    limits = ImageLimits()
    with gr.Blocks(title="moonseg demo", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as blocks:
        visit = gr.State(Visit(), time_to_live=KEPT_SECONDS)
        gr.Markdown(f"# Masks from words\nWeights: {_code(model.weights)}. {model.note}")
        with gr.Row():
            with gr.Column(scale=2):
                upload = gr.File(
                    label=f"Photo, up to {limits.max_bytes >> 20} MiB and {limits.max_pixels // 10**6} megapixels",
                    file_types=["image"], height=130, elem_id="upload",
                )  # fmt: skip
                gallery = gr.Gallery(
                    [(one.photo, one.known_phrase) for one in examples()], label="Or an example", columns=3,
                    height=370, allow_preview=False, interactive=False, buttons=[], format="png", elem_id="examples",
                )  # fmt: skip
                phrase = gr.Textbox(
                    label="What to segment", placeholder="the small red star", max_lines=1, elem_id="phrase"
                )
                ask = gr.Button("Segment", variant="primary", elem_id="ask")
                forget = gr.Button("Forget point and box", size="sm", elem_id="forget")
            with gr.Column(scale=3):
                shown = gr.Image(
                    label="Photo", interactive=False, buttons=["fullscreen"], format="png", height=500,
                    elem_id="picture", alt_text="The photo with what was drawn on it",
                )  # fmt: skip
                gr.Markdown(HOW_TO_POINT)
                where = gr.Textbox(label=WHERE, placeholder="0.25, 0.5", max_lines=1, elem_id="where")
                view = gr.Radio(views_of(Visit()), value="photo", label="Show", elem_id="view")
                words = gr.Markdown("Drop a photo or choose an example, and say what to segment.", elem_id="words")
                with gr.Row():
                    files = [gr.DownloadButton(name, interactive=False, elem_id=_file_id(name)) for name in NAMES]
                path = gr.Textbox(label="The path as drawn", lines=3, max_lines=6, interactive=False, elem_id="path")

        def begin(begun: Visit, said: str) -> tuple[Any, ...]:
            """Everything for another photo."""
            return begun, picture(begun, "photo"), _views(begun, "photo"), "", said, *_no_files(), ""

        def opened(file: str | None) -> tuple[Any, ...]:
            if file is None:
                return begin(Visit(), "Drop a photo or choose an example, and say what to segment.")
            try:
                return begin(open_photo(Path(file)), "Now say what to segment.")
            except UserError as error:
                raise _refusal(error) from error

        def chosen(event: gr.SelectData) -> tuple[Any, ...]:
            begun = examples()[int(event.index)]
            return *begin(begun, "Press Segment, or say something else."), begun.known_phrase, None

        def clicked(before: Visit, at: View, event: gr.SelectData) -> tuple[Any, ...]:
            under = picture(before, "photo")
            if under is None:
                return before, None, ""
            (x, y), (height, width) = event.index, under.shape[:2]
            after = before.clicked(((x + 0.5) / width, (y + 0.5) / height))
            return after, picture(after, at), after.where

        def pointed(before: Visit, at: View, said: str) -> tuple[Any, ...]:
            try:
                after = before.pointed(said)
            except UserError:  # Half typed, perhaps; what stays wrong is told when it is asked with.
                return gr.skip(), gr.skip()
            return (gr.skip(), gr.skip()) if after is before else (after, picture(after, at))

        def forgotten(before: Visit, at: View) -> tuple[Any, ...]:
            after = dataclasses.replace(before, clicks=())
            return after, picture(after, at), after.where

        def asked(before: Visit, text: str, said: str) -> Iterator[tuple[Any, ...]]:
            try:
                for moment in shown_turn(model, before.pointed(said), text or ""):
                    answer = moment.visit.answer
                    written = _no_files()
                    if answer is not None:
                        written = _files(write_downloads(answer, folder))
                    views = _views(moment.visit, "photo" if answer is None else "refined mask")
                    yield moment.visit, moment.picture, views, moment.path, moment.words, *written
            except UserError as error:
                raise _refusal(error) from error

        everything = [visit, shown, view, path, words, *files]
        asking = gr.on(
            [ask.click, phrase.submit, where.submit], asked, [visit, phrase, where], everything,
            concurrency_limit=AT_ONCE, concurrency_id="model", trigger_mode="always_last", show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        anew = [*everything, where]
        gr.on([upload.upload, upload.clear], opened, upload, anew, cancels=[asking], **plain)
        gallery.select(chosen, None, [*anew, phrase, upload], cancels=[asking], **plain)
        shown.select(clicked, [visit, view], [visit, shown, where], trigger_mode="multiple", **plain)
        where.change(pointed, [visit, view, where], [visit, shown], trigger_mode="always_last", **plain)
        forget.click(forgotten, [visit, view], [visit, shown, where], **plain)
        view.input(picture, [visit, view], shown, trigger_mode="always_last", **plain)
    return blocks


def _views(visit: Visit, value: View) -> Any:
    return gr.update(choices=views_of(visit), value=value)


def _files(written: Sequence[Path]) -> tuple[Any, ...]:
    return tuple(gr.update(value=str(file), interactive=True) for file in written)


def _no_files() -> tuple[Any, ...]:
    return tuple(gr.update(value=None, interactive=False) for _ in NAMES)


def _file_id(name: str) -> str:
    return f"download-{name.partition('.')[2]}"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`" if "/" in text else text


def _refusal(error: UserError) -> gr.Error:
    """A message on the page; Gradio reads it as HTML."""
    return gr.Error(html.escape(str(error), quote=False), print_exception=False)
