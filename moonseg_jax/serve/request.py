"""What a request asks for: the JSON body of `/v1/segment`, checked, its image decoded."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.images import UNREADABLE
from moonseg_jax.serve.problem import Problem
from moonseg_jax.spatial_refs import prompt_references
from moonseg_jax.still_image import decode_still

REFERENCES = ("spatial_refs", "spatial_references")
"""The name the official clients send, and a second one."""
SAMPLING = {"temperature": (0.0, math.inf), "top_p": (0.0, 1.0), "max_tokens": (1, math.inf)}
"""Settings that are known, and what they may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentRequest:
    """One phrase in one image."""

    image: UInt8[np.ndarray, "H W 3"]
    phrase: str
    references: tuple[tuple[float, ...], ...]
    """Points and boxes (x_min, y_min, x_max, y_max), in units of the image."""
    stream: bool
    ignored: tuple[str, ...]
    """Fields that change nothing here, such as `settings.temperature`: paths are the most probable ones."""

    @property
    def goes_alone(self) -> bool:
        """Whether it cannot share a batch: streams and references are of one image."""
        return self.stream or bool(self.references)


def parse_request(body: bytes, *, max_pixels: float) -> SegmentRequest:
    """Reads a body.

    Args:
      body: UTF-8 JSON.
      max_pixels: of the image.

    Raises:
      Problem: 400, naming the field; 413 for an image with more pixels.
    """
    fields = _object(body)
    phrase = fields.pop("object", None)
    if not isinstance(phrase, str) or not phrase.strip():
        raise Problem(400, "Field 'object' must be a non-empty string: say what to segment")
    stream = fields.pop("stream", None) or False
    if not isinstance(stream, bool):
        raise Problem(400, "Field 'stream' must be true or false")
    references = _references(fields)
    ignored = _settings(fields.pop("settings", None))
    image = _image(fields.pop("image_url", None), max_pixels)
    return SegmentRequest(
        image=image, phrase=phrase.strip(), references=references, stream=stream, ignored=(*sorted(fields), *ignored)
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "Request body must be JSON") from error
    if not isinstance(fields, dict):
        raise Problem(400, "Request body must be a JSON object")
    return fields


def _references(fields: dict[str, Any]) -> tuple[tuple[float, ...], ...]:
    given = {name: value for name in REFERENCES if (value := fields.pop(name, None)) is not None}
    if len(given) > 1:
        raise Problem(400, f"Fields {' and '.join(map(repr, given))} are the same; give one of them")
    for name, value in given.items():
        if not isinstance(value, list) or not all(_is_numbers(one) for one in value):
            raise Problem(400, f"Field {name!r} must be a list of [x, y] and [x_min, y_min, x_max, y_max]")
        references = tuple(tuple(float(number) for number in one) for one in value)
        try:
            prompt_references(references)
        except UserError as error:
            raise Problem(400, f"Field {name!r}: {error}") from error
        return references
    return ()


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _settings(settings: Any) -> tuple[str, ...]:
    """Names of what is set and has no effect. Temperature 0 is what happens anyway."""
    if settings is None:
        return ()
    if not isinstance(settings, dict):
        raise Problem(400, "Field 'settings' must be an object")
    for name, (least, most) in SAMPLING.items():
        value = settings.get(name)
        if value is not None and not (_is_number(value) and least <= value <= most):
            raise Problem(400, f"Field 'settings.{name}' must be a number from {least:g} to {most:g}")
    return tuple(
        f"settings.{name}"
        for name, value in sorted(settings.items())
        if value is not None and not (name == "temperature" and value == 0)
    )


def _image(url: Any, max_pixels: float) -> np.ndarray:
    if not isinstance(url, str):
        raise Problem(400, "Field 'image_url' must be a string: data:image/jpeg;base64,...")
    head, comma, payload = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise Problem(400, "Field 'image_url' must be a data URI, data:image/jpeg;base64,...; nothing is fetched")
    try:
        content = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"Field 'image_url' is not base64: {error}") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise Problem(
            413, f"The image has far more pixels than the limit of {max_pixels:.0f}; shrink it first"
        ) from error
    except UNREADABLE as error:
        raise Problem(400, "Field 'image_url' is no image that can be read; send a PNG, JPEG or WebP") from error
    if width * height > max_pixels:
        raise Problem(413, f"The image has {width}x{height} pixels, the limit is {max_pixels:.0f}; shrink it first")
    try:
        return decode_still(content)
    except UserError as error:
        raise Problem(400, f"Field 'image_url': {error}") from error
