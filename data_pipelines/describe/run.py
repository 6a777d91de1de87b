"""Describing a split: reads every photo once, prints tables, writes a contact sheet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress
from rich import box
from rich.console import Console
from rich.table import Table

from data_pipelines.describe.sheet import TILES, contact_sheet
from data_pipelines.describe.statistics import example_numbers, summary
from data_pipelines.source import open_split
from moonseg_jax.config import PRESETS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import Vocabulary
from moonseg_jax.types import Example

PRINTED_WIDTH = 100
"""Of tables that go into a file or a pipe."""

TITLES = {
    "words": "words of a phrase", "characters": "characters of a phrase", "area": "target, share of the photo",
    "parts": "parts of a target", "holes": "holes in a target", "tokens": "tokens of a target",
    "traced_iou": "IoU of the traced target",
}  # fmt: skip


def describe(
    folder: str | os.PathLike[str],
    *,
    split: str,
    preset: str,
    limit: int | None = None,
    sheet: Path | None = None,
    json_file: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Prints what a split holds.

    Args:
      folder: of a built data set.
      split: which one.
      preset: model whose path language targets are counted in.
      limit: most photos, spread evenly; None for all.
      sheet: PNG file for the contact sheet; None draws none.
      json_file: takes the figures; None writes none.
      progress: show a bar on standard error.

    Returns:
      What `summary` gives.

    Raises:
      UserError: no such data set or split, no such tokenizer, or an output cannot be written.
    """
    for file in (sheet, json_file):
        if file is not None and not file.parent.is_dir():
            raise UserError(f"{file}: there is no folder {file.parent}; make it first")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UserError(f"-o {sheet}: the contact sheet is a PNG file; let the name end in .png")
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least one photo is needed")
    source, model = open_split(folder, split), PRESETS[preset]()
    vocabulary = Vocabulary.from_config(model.paths)
    count = min(limit or len(source), len(source))
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    on_sheet = set(np.unique(np.linspace(0, len(chosen) - 1, TILES).round().astype(int)).tolist())
    numbers, shown = [], []
    bar = rich.progress.track(chosen, "photos read", console=Console(stderr=True), disable=not progress)
    for position, index in enumerate(bar):
        scene = source[int(index)]
        numbers += [example_numbers(example, model, vocabulary) for example in scene.examples]
        if position in on_sheet:
            shown.append(_shown(scene.examples, position))
    found = summary(numbers, len(chosen), model.paths.max_new_tokens)
    console = Console()
    console = console if console.is_terminal else Console(width=PRINTED_WIDTH)
    console.print(f"{source.manifest.name}, split {split}: {found['photos']} of {len(source)} photos", highlight=False)
    console.print(_counts(found, preset), _spread(found["spread"]))
    if json_file is not None:
        json_file.write_text(json.dumps({"data": source.manifest.name, "split": split, **found}, indent=2) + "\n")
    if sheet is not None:
        contact_sheet(shown).save(sheet)
        console.print(f"contact sheet: {sheet}", highlight=False)
    return found


def _shown(examples: tuple[Example, ...], position: int) -> Example:
    """One example of a photo, by turns the first, the second, …"""
    return examples[position % len(examples)]


def _counts(found: Mapping[str, Any], preset: str) -> Table:
    table = Table(box=box.MARKDOWN, show_header=True)
    table.add_column("what")
    table.add_column("count", justify="right")
    for title, name in {
        "photos": "photos", "phrases": "phrases", "phrases without target": "without_target",
        "targets of several parts": "several_parts", "targets with holes": "with_holes",
        f"targets that fill all {found['budget']} tokens of {preset}": "at_budget",
        f"targets of which {preset} leaves parts out": "cut",
    }.items():  # fmt: skip
        table.add_row(title, f"{found[name]:,}")
    return table


def _spread(spread: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("")
    columns = ("mean", "p10", "p50", "p90", "p99", "max")
    for name in columns:
        table.add_column(name, justify="right")
    for name, title in TITLES.items():
        if name in spread:
            table.add_row(title, *(f"{spread[name][column]:.3g}" for column in columns))
    return table
