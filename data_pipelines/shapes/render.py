"""Pixels of a scene: textured ground, soft shadows, shaded objects, weak edges."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from data_pipelines.shapes import raster, textures
from data_pipelines.shapes.draws import Draws
from data_pipelines.shapes.layout import REFERENCE_SIZE, PlacedObject

_HUES = {"red": 0.0, "yellow": 0.15, "green": 0.34, "cyan": 0.5, "blue": 0.62, "purple": 0.8}
_HUE_JITTER = 0.018
_FULL = np.float32(raster.SUPERSAMPLING**2)

Canvas = Float32[np.ndarray, "H W 3"]


def render(placed: list[PlacedObject], size: int, texture: float, draws: Draws) -> UInt8[np.ndarray, "H W 3"]:
    """Paints a scene back to front.

    Args:
      placed: objects, back to front.
      size: side of the image in pixels.
      texture: strength of textures, shadows and weak edges; 0 draws flat colours on a flat ground.
      draws: random stream.

    Returns:
      RGB image.
    """
    canvas = _ground(size, texture, draws)
    shadows = texture > 0 and draws.chance(0.65)
    angle, distance = draws.between(0, 2 * math.pi), draws.between(2.5, 5) * size / REFERENCE_SIZE
    offset = (distance * math.cos(angle), distance * math.sin(angle))
    depth = draws.between(0.3, 0.6)
    for item in placed:
        if shadows:
            _shadow(canvas, item, offset, depth, size)
        _object(canvas, item, texture, size / REFERENCE_SIZE, draws)
    if texture > 0:
        light = textures.ramp(size, size, draws.between(0, 2 * math.pi)) * np.float32(draws.between(0, 0.12))
        grain = textures.noise(size, size, draws) * np.float32(16) - np.float32(8)
        canvas *= (light + np.float32(1))[..., None]
        canvas += grain[..., None]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _rgb(hue: float, saturation: float, value: float) -> Float32[np.ndarray, " 3"]:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32) * np.float32(255)


def _named_colour(colour: str, draws: Draws) -> Float32[np.ndarray, " 3"]:
    """A colour that deserves its name, in 0..255."""
    if colour == "white":
        return _rgb(draws.unit(), draws.between(0, 0.06), draws.between(0.92, 1.0))
    hue = _HUES[colour] + draws.between(-_HUE_JITTER, _HUE_JITTER)
    return _rgb(hue, draws.between(0.72, 1.0), draws.between(0.75, 1.0))


def _ground(size: int, texture: float, draws: Draws) -> Canvas:
    """A muted ground; with texture, two such colours mixed by noise and perhaps stripes."""
    first = _rgb(draws.unit(), draws.between(0, 0.35), draws.between(0.2, 0.65))
    if texture == 0:
        return np.broadcast_to(first, (size, size, 3)).copy()
    second = _rgb(draws.unit(), draws.between(0, 0.4), draws.between(0.15, 0.7))
    mix = textures.noise(size, size, draws)
    if draws.chance(0.35):
        period = draws.between(6, 20) * size / REFERENCE_SIZE
        mix = mix * np.float32(0.5) + textures.stripes(size, size, period, draws) * np.float32(0.5)
    return first + (second - first) * mix[..., None]


def _shadow(canvas: Canvas, item: PlacedObject, offset: tuple[float, float], depth: float, size: int) -> None:
    """Darkens what lies behind an object along its shifted, blurred outline, in place."""
    rows, columns = item.window
    reach = math.ceil(max(abs(offset[0]), abs(offset[1]))) + 3
    top, left = max(rows.start - reach, 0), max(columns.start - reach, 0)
    bottom, right = min(rows.stop + reach, size), min(columns.stop + reach, size)
    shift = np.array([[1, 0, columns.start - left + offset[0]], [0, 1, rows.start - top + offset[1]]])
    moved = cv2.warpAffine(item.coverage, shift, (right - left, bottom - top), flags=cv2.INTER_NEAREST)
    soft = cv2.blur(moved, (5, 5)).astype(np.float32)
    canvas[top:bottom, left:right] *= (np.float32(1) - soft * np.float32(depth / _FULL))[..., None]


def _object(canvas: Canvas, item: PlacedObject, texture: float, scale: float, draws: Draws) -> None:
    """Paints one object over the canvas, in place."""
    region = canvas[item.window]
    alpha = item.coverage.astype(np.float32) * (np.float32(1) / _FULL)
    colour = _named_colour(item.role.colour, draws)
    if texture == 0:
        region += alpha[..., None] * (colour - region)
        return
    height, width = alpha.shape
    brightness = _brightness(height, width, item.role.colour, texture, scale, draws)
    if draws.chance(0.6):
        # A weak edge: on one side the object fades towards what lies behind it.
        fade = textures.ramp(height, width, draws.between(0, 2 * math.pi)) * np.float32(0.7)
        alpha = alpha * (np.float32(1) - np.clip(fade, 0, np.float32(min(0.58 * texture, 0.7))))
    region += alpha[..., None] * (brightness[..., None] * colour - region)


def _brightness(
    height: int, width: int, colour: str, texture: float, scale: float, draws: Draws
) -> Float32[np.ndarray, "h w"]:
    """Shading gradient times stripes or noise, about .35 to 1.1; white stays lighter, or it would be grey."""
    strength = texture * (0.6 if colour == "white" else 1.0)
    gradient = textures.ramp(height, width, draws.between(0, 2 * math.pi))
    shading = np.float32(0.85) + gradient * np.float32(draws.between(0.08, 0.25) * strength)
    choice = draws.unit()
    if choice < 0.45:
        pattern = textures.stripes(height, width, draws.between(5, 11) * scale, draws)
    elif choice < 0.85:
        pattern = textures.noise(height, width, draws)
    else:
        return shading
    return shading * (np.float32(1) - pattern * np.float32(draws.between(0.3, 0.55) * strength))
