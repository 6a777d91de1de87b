"""The gallery on disk: pictures a person can open and one JSON file, so that a page can be written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, UInt8
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.gallery.scenes import GalleryItem, GallerySection

INDEX = "gallery.json"


def save_gallery(sections: tuple[GallerySection, ...], folder: Path) -> None:
    """Writes a gallery: `gallery.json` and, per scene, PNG files of image and masks.

    Args:
      sections: What to write.
      folder: Made if missing; what lies there is replaced once all is written.
    """
    partial, place = epath.Path(folder).with_name(f"{folder.name}.partial"), epath.Path(folder)
    _clear(partial)
    partial.mkdir(parents=True)
    index = [
        {
            "title": section.title,
            "note": section.note,
            "items": [_save(item, partial, f"{section.title.lower()}-{n:03d}") for n, item in enumerate(section.items)],
        }
        for section in sections
    ]
    (partial / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    _clear(place)
    partial.rename(place)


def _clear(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()


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


def _save(item: GalleryItem, folder: epath.Path, name: str) -> dict[str, Any]:
    _picture(item.image, folder / f"{name}-image.png")
    for kind, mask in (("coarse", item.coarse), ("refined", item.refined), ("truth", item.truth)):
        if mask is not None:
            _picture(mask.astype(np.uint8) * 255, folder / f"{name}-{kind}.png")
    return {
        "name": name,
        "phrase": item.phrase,
        "polygons": [np.round(polygon.astype(float), 5).tolist() for polygon in item.polygons],
        "iou_coarse": float(item.iou_coarse),
        "iou_refined": None if item.iou_refined is None else float(item.iou_refined),
        "refined": item.refined is not None,
        "status": item.status,
    }


def _picture(pixels: UInt8[np.ndarray, "H W *C"], file: epath.Path) -> None:
    with file.open("wb") as opened:
        Image.fromarray(pixels).save(opened, "PNG")


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
