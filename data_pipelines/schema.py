"""The one TFDS feature schema of every data set of the project, and the way there and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from moonseg_jax.types import Example, Scene

_REFERENCE_WIDTH = 4


def features() -> tfds.features.FeaturesDict:
    """One record is one image with all its phrases.

    `counts` is the COCO compressed run-length encoding at the image's size, empty without a target. `tags`
    are joined by spaces. `references` lists the spatial references of all phrases (a sequence within a
    sequence would need TensorFlow): `example` is the position of the phrase, `values` a box (cx, cy, w, h) or
    a point (x, y, 0, 0), in units of the image.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image_id": np.int64,
            "examples": tfds.features.Sequence(
                {
                    "phrase": tfds.features.Text(),
                    "example_id": np.int64,
                    "counts": tfds.features.Text(),
                    "has_target": np.bool_,
                    "tags": tfds.features.Text(),
                }
            ),
            "references": tfds.features.Sequence(
                {
                    "example": np.int64,
                    "values": tfds.features.Tensor(shape=(_REFERENCE_WIDTH,), dtype=np.float32),
                }
            ),
        }
    )


def to_record(scene: Scene, image_bytes: bytes | None = None) -> dict[str, Any]:
    """A scene as TFDS writes it.

    Args:
      scene: at least one example.
      image_bytes: the image as PNG or JPEG file; None encodes it as PNG.
    """
    first = scene.examples[0]
    return {
        # TFDS needs TensorFlow to encode arrays, but takes encoded files as they are.
        "image": io.BytesIO(encode_png(first.image) if image_bytes is None else image_bytes),
        "image_id": first.image_id,
        "examples": [
            {
                "phrase": example.phrase,
                "example_id": example.example_id,
                "counts": example.target["counts"] if example.target else b"",
                "has_target": example.target is not None,
                "tags": " ".join(example.tags),
            }
            for example in scene.examples
        ],
        "references": [
            {"example": position, "values": _padded(reference)}
            for position, example in enumerate(scene.examples)
            for reference in example.references
        ],
    }


def merged_record(records: Sequence[dict[str, Any]], first_id: int) -> dict[str, Any]:
    """One record of several of one photo, as TFDS writes it; an example that occurs twice is kept once.

    Args:
      records: as they are read, images still encoded; the file of the first one is kept.
      first_id: examples are numbered from it.
    """
    examples: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    seen: set[tuple[bytes, bytes]] = set()
    for record in records:
        columns = record["examples"]
        kept: dict[int, int] = {}
        for position in range(len(columns["phrase"])):
            said = (columns["phrase"][position], columns["counts"][position])
            # Within one data set a sentence may occur twice on purpose; between data sets it is the same example.
            if said in seen and record is not records[0]:
                continue
            kept[position] = len(examples)
            example = {name: columns[name][position] for name in ("phrase", "counts", "has_target", "tags")}
            examples.append({**example, "example_id": first_id + len(examples)})
        seen |= set(zip(columns["phrase"], columns["counts"]))
        references += [
            {"example": kept[int(position)], "values": values}
            for position, values in zip(record["references"]["example"], record["references"]["values"])
            if int(position) in kept
        ]
    return {
        "image": io.BytesIO(records[0]["image"]), "image_id": records[0]["image_id"], "examples": examples,
        "references": references,
    }  # fmt: skip


def to_scene(record: dict[str, Any]) -> Scene:
    """The inverse of `to_record`, from a record whose image is still encoded.

    Raises:
      ValueError: if the image cannot be decoded.
    """
    image = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"the image of record {record['image_id']} is neither PNG nor JPEG")
    columns = record["examples"]
    references: list[list[tuple[float, ...]]] = [[] for _ in columns["phrase"]]
    for position, row in zip(record["references"]["example"], record["references"]["values"]):
        references[position].append(_trimmed(row))
    size = [image.shape[0], image.shape[1]]
    return Scene(
        examples=tuple(
            Example(
                image=image,
                phrase=columns["phrase"][k].decode(),
                target={"size": size, "counts": columns["counts"][k]} if columns["has_target"][k] else None,
                image_id=int(record["image_id"]),
                example_id=int(columns["example_id"][k]),
                references=tuple(references[k]),
                tags=tuple(columns["tags"][k].decode().split()),
            )
            for k in range(len(columns["phrase"]))
        )
    )


def encode_png(image: np.ndarray) -> bytes:
    """An RGB image uint8[H, W, 3] as PNG file, compressed little."""
    written, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _FAST_PNG)
    if not written:
        raise ValueError(f"an image of shape {image.shape} cannot be written as PNG")
    return data.tobytes()


_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def _padded(reference: tuple[float, ...]) -> np.ndarray:
    row = np.zeros(_REFERENCE_WIDTH, np.float32)
    row[: len(reference)] = reference
    return row


def _trimmed(row: np.ndarray) -> tuple[float, ...]:
    """A box stays, a row without extent is a point."""
    values = tuple(float(value) for value in row)
    return values if values[2:] != (0.0, 0.0) else values[:2]
