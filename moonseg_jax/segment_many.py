"""Many answers into one folder: masks, paths and overlays as files, and a line for every answer."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.overlay import overlay_picture
from moonseg_jax.predict import Segmenter
from moonseg_jax.progress import Progress
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.spatial_refs import SpatialRefs
from moonseg_jax.still_image import decode_still

LINES = "segmentations.jsonl"
AT_ONCE = 8
"""Images decoded and answered between two writings; more where a batch has more."""
SLUG = 40
"""Most letters of a phrase in a file's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a folder."""

    images: int
    answers: int
    empty: int
    """Answers whose mask is empty."""
    failed: tuple[str, ...]
    """Files that cannot be read."""


def images_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Files of a folder whose ending is an image's, by name, and the names of everything else, but hidden files.

    Raises:
      UserError: there is no image.
    """
    endings = Image.registered_extensions()
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = [path for path in found if path.is_file() and path.suffix.lower() in endings]
    if not images:
        raise UserError(f"{folder}: no images; name a folder with .png, .jpg or other pictures in it")
    taken = set(images)
    return images, [path.name for path in found if path not in taken]


def segment_many(
    segmenter: Segmenter,
    files: Sequence[Path],
    phrases: Sequence[str],
    out: Path,
    *,
    spatial_refs: SpatialRefs | None = None,
) -> Outcome:
    """Answers every phrase for every image; writes as it goes, and goes on where a file cannot be read.

    Per image FILE and phrase: `FILE.N-PHRASE.png` (the mask) and `.svg` (its path); per image `FILE.overlay.png`; and
    a line of `segmentations.jsonl`.

    Args:
      segmenter: loaded weights.
      files: images.
      phrases: at least one.
      out: folder, made if need be.
      spatial_refs: see `Segmenter.segment`; only where there is one image.

    Raises:
      UserError: the folder holds answers already or cannot be written, or a phrase cannot be said.
    """
    lines = out / LINES
    if lines.exists():
        raise UserError(f"-o {out}: holds {LINES} already; name another folder, or remove this one")
    failed: list[str] = []
    answers = empty = 0
    try:
        out.mkdir(exist_ok=True)
        with lines.open("x", encoding="utf-8") as record, Progress("segment", len(files)) as progress:
            at_once = max(AT_ONCE, segmenter.batch)
            for start in range(0, len(files), at_once):
                part = files[start : start + at_once]
                readable, pixels = [], []
                for file in part:
                    try:
                        pixels.append(decode_still(file))
                        readable.append(file)
                    except UserError as error:
                        failed.append(file.name)
                        progress.note(str(error))
                        _append(record, {"file": file.name, "status": f"failed: {error}"})
                if len(files) == len(pixels) == 1:
                    of_images = [segmenter.segment(pixels[0], tuple(phrases), spatial_refs)]
                else:
                    of_images = segmenter.segment_each(pixels, phrases)
                for file, found in zip(readable, of_images, strict=True):
                    for line in _write_image(out, file, found):
                        _append(record, line)
                    answers += len(found)
                    empty += sum(not answer.mask.any() for answer in found)
                progress.update(start + len(part))
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror or error}") from error
    return Outcome(images=len(files), answers=answers, empty=empty, failed=tuple(failed))


def _append(record: IO[str], line: dict[str, Any]) -> None:
    """Written at once: what was answered before an interruption stays."""
    record.write(json.dumps(line, ensure_ascii=False) + "\n")
    record.flush()


def _write_image(out: Path, file: Path, found: Sequence[Segmentation]) -> Iterator[dict[str, Any]]:
    """Writes the files of one image; a line per answer."""
    overlay = f"{file.name}.overlay.png"
    overlay_picture(found).save(out / overlay)
    for number, answer in enumerate(found, 1):
        stem = f"{file.name}.{number}-{_slug(answer.phrase)}"
        answer.save(out / f"{stem}.png")
        answer.save(out / f"{stem}.svg")
        told = answer.to_json()
        public = answer.to_moondream()
        yield {
            "file": file.name, "phrase": answer.phrase, "status": answer.status,
            "score": told["score"], "presence": told["presence"],
            "box": public.get("bbox"), "path": public["path"], "path_is": told["path_is"],
            "coco": told["coco"], "mask": f"{stem}.png", "svg": f"{stem}.svg", "overlay": overlay,
        }  # fmt: skip


def _slug(phrase: str) -> str:
    """The phrase as part of a file's name: letters and digits of any script, joined by hyphens."""
    return "-".join(re.findall(r"\w+", phrase.lower()))[:SLUG].strip("-") or "phrase"
