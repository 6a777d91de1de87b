"""The commands `moonseg path …`: what a tokenizer can write, masks to paths, and paths to masks."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import tyro

from moonseg_jax.errors import UserError

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
MAX_PIXELS = 64_000_000
"""Largest mask."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathVocabulary:
    """Report which tokens of a tokenizer are pieces of paths, and which integers can be written."""

    tokenizer: Annotated[str, tyro.conf.arg(metavar="FILE|embedded:NAME")]
    """A tokenizers JSON file, or embedded:tiny or embedded:small."""
    json: OptionalPath = None
    """File for the report as JSON."""

    def run(self) -> None:
        """Prints the report; missing integers are warned of on standard error.

        Raises:
          UserError: No tokenizer, one that cannot write paths, or a file that cannot be written.
        """
        from moonseg_jax.config import PathConfig
        from moonseg_jax.paths.alphabet import alphabet_report
        from moonseg_jax.paths.vocabulary import Vocabulary

        paths = PathConfig(tokenizer=self.tokenizer, max_prompt_tokens=64, max_new_tokens=768, raster=378)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            report = alphabet_report(Vocabulary.from_config(paths))
        for warning in caught:
            print(f"moonseg: warning: {warning.message}", file=sys.stderr)
        if self.json is not None:
            self.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
        print(report.text())


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathTrace:
    """Turn a mask into a path: parts and holes along the edges of pixels, simplified, in a box of 960 units."""

    mask: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MASK")]
    """Greyscale image: black and one other level; with more levels, foreground is brighter than half."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """.json for box, commands and numbers, .svg for a browser."""
    tolerance: Annotated[float, tyro.conf.arg(metavar="PX")] = 0.5
    """Farthest the path may stray from the mask's outline, in pixels; 0 keeps every pixel edge."""
    curves: bool = False
    """Write cubic curves, fitted to the traced outline within the tolerance once more, instead of straight lines."""
    max_subpaths: int = 256
    """Most outlines and holes; beyond, the largest are kept and the loss of area is told."""
    photo: OptionalPath = None
    """Photo to show beneath the path, kept inside the .svg."""

    def run(self) -> None:
        """Traces, writes the path and says what it is.

        Raises:
          UserError: The mask, the photo, a number or the name of the output cannot be used.
        """
        from moonseg_jax.paths.mask_image import photo_uri, read_mask
        from moonseg_jax.paths.mask_path import path_of_mask
        from moonseg_jax.paths.path_file import check_suffix, write_path

        check_suffix(self.out)
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UserError(f"--tolerance must be a number of pixels of at least 0, got {self.tolerance}")
        if self.curves and self.tolerance == 0:
            raise UserError("--curves needs a --tolerance above 0: curves are fitted within it")
        if self.max_subpaths < 1:
            raise UserError(f"--max-subpaths must be at least 1, got {self.max_subpaths}")
        if self.photo is not None and self.out.suffix.lower() != ".svg":
            raise UserError(f"--photo goes with an .svg; -o is {self.out}")
        mask, levels = read_mask(self.mask)
        height, width = mask.shape
        photo = photo_uri(self.photo, height=height, width=width) if self.photo is not None else None
        traced = path_of_mask(mask, tolerance=self.tolerance, max_subpaths=self.max_subpaths, curves=self.curves)
        write_path(traced.path, self.out, height=height, width=width, photo=photo)
        if levels > 2:
            print(f"{self.mask} has {levels} grey levels: taken as foreground where brighter than half")
        if traced.left_out:
            print(
                f"left out beyond --max-subpaths {self.max_subpaths}: {traced.left_out} of the smallest outlines and "
                f"holes; {_share(traced.lost, mask.sum())} lost, {_share(traced.filled, mask.sum())} filled in"
            )
        if not traced.vertices:
            print(f"the mask is empty and so is the path; written to {self.out}")
        else:
            pieces = _counted(traced.vertices, "curve") if self.curves else f"{traced.vertices} vertices"
            print(
                f"{_counted(traced.parts, 'part')}, {_counted(traced.holes, 'hole')}, {pieces}, "
                f"IoU {traced.iou:.4f} with the mask; written to {self.out}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathRasterize:
    """Draw a path as a mask of any size, by exact coverage: pixels covered more than half are white."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """.json or .svg, as written by `path trace` or `segment`."""
    size: Annotated[str, tyro.conf.arg(metavar="HxW")]
    """Height and width of the mask in pixels: 480x640."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """.png for the mask, 0 and 255."""
    rule: Literal["nonzero", "evenodd", "union"] | None = None
    """What counts as inside; the file's own rule by default, and nonzero where it names none."""

    def run(self) -> None:
        """Draws, writes the mask and says how much is covered.

        Raises:
          UserError: The path, the size or the name of the output cannot be used.
        """
        height, width = _parse_size(self.size)
        if self.out.suffix.lower() != ".png":
            raise UserError(f"-o {self.out}: the name must end in .png")
        import numpy as np
        from PIL import Image

        from moonseg_jax.paths.draw import draw_mask
        from moonseg_jax.paths.path_file import read_path

        path = read_path(self.path)
        mask = draw_mask(path, height, width, self.rule)
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(self.out)
        print(f"{np.count_nonzero(mask)} pixels, {mask.mean():.1%} of {height}x{width}, written to {self.out}")


PathAction = (
    Annotated[PathVocabulary, tyro.conf.subcommand("vocabulary")]
    | Annotated[PathTrace, tyro.conf.subcommand("trace")]
    | Annotated[PathRasterize, tyro.conf.subcommand("rasterize")]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathCommand:
    """Masks to paths, paths to masks, and what a tokenizer can write of them."""

    action: PathAction

    def run(self) -> None:
        """Does what was chosen."""
        self.action.run()


def _parse_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if found is None:
        raise UserError(f"--size {text}: give height x width in pixels, for example 480x640")
    height, width = int(found[1]), int(found[2])
    if height * width > MAX_PIXELS:
        raise UserError(f"--size {text}: the limit is {MAX_PIXELS} pixels")
    return height, width


def _share(pixels: int, of: int) -> str:
    return f"{pixels} px ({pixels / max(of, 1):.1%} of the mask)"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")
