"""The gallery on disk: pictures a person can open and one JSON file, so that a page can be written again."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.gallery.scenes import GalleryItem, GallerySection
from moonseg_jax.storage import copy_from_this_machine, in_bucket

INDEX = "gallery.json"


def save_gallery(sections: tuple[GallerySection, ...], folder: Path) -> None:
    """Writes a gallery: `gallery.json` and, per scene, PNG files of image and masks.

    Args:
      sections: What to write.
      folder: Made if missing; what lies there is replaced once all is written.
    """
    if in_bucket(folder):
        with tempfile.TemporaryDirectory() as here:
            _write(sections, Path(here))
            copy_from_this_machine(Path(here), folder, last=(INDEX,))
        return
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    _write(sections, partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def _write(sections: tuple[GallerySection, ...], folder: Path) -> None:
    index = [
        {
            "title": section.title,
            "note": section.note,
            "items": [_save(item, folder, f"{section.title.lower()}-{n:03d}") for n, item in enumerate(section.items)],
        }
        for section in sections
    ]
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def load_gallery(folder: Path) -> tuple[GallerySection, ...]:
    """Reads what `save_gallery` wrote.

    Raises:
      UserError: A file is missing or broken.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return tuple(
            GallerySection(
                title=section["title"],
                note=section["note"],
                items=tuple(_load(entry, folder) for entry in section["items"]),
            )
            for section in index
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a gallery of a run: {type(error).__name__}: {error}") from error


def _save(item: GalleryItem, folder: Path, name: str) -> dict[str, Any]:
    Image.fromarray(item.image).save(folder / f"{name}-image.png")
    for kind, mask in (("coarse", item.coarse), ("refined", item.refined), ("truth", item.truth)):
        if mask is not None:
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}-{kind}.png")
    return {
        "name": name,
        "phrase": item.phrase,
        "polygons": [np.round(polygon.astype(float), 5).tolist() for polygon in item.polygons],
        "iou_coarse": float(item.iou_coarse),
        "iou_refined": None if item.iou_refined is None else float(item.iou_refined),
        "refined": item.refined is not None,
        "status": item.status,
    }


def _load(entry: dict[str, Any], folder: Path) -> GalleryItem:
    name = str(entry["name"])
    if Path(name).name != name:
        raise UserError(f"{folder / INDEX}: {name!r} is not the name of a file in that folder")

    def mask(kind: str) -> Bool[np.ndarray, "H W"]:
        with (folder / f"{name}-{kind}.png").open("rb") as opened, Image.open(opened) as picture:
            return np.asarray(picture.convert("L")) > 127

    with (folder / f"{name}-image.png").open("rb") as opened, Image.open(opened) as picture:
        image = np.asarray(picture.convert("RGB"))
    return GalleryItem(
        image=image,
        phrase=entry["phrase"],
        polygons=tuple(np.asarray(polygon, float).reshape(-1, 2) for polygon in entry["polygons"]),
        coarse=mask("coarse"),
        refined=mask("refined") if entry["refined"] else None,
        truth=mask("truth"),
        iou_coarse=entry["iou_coarse"],
        iou_refined=entry["iou_refined"],
        status=entry["status"],
    )
