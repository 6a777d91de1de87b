"""Where the user points: spatial references as the public API takes them → as prompts write them.

The API's boxes are corners in units of the image: docs.moondream.ai/skills/segment, and `SpatialRef` in
`moondream/types.py` of its client 2.6.1. Its engine turns them into centre and size for the prompt, as is done here:
`kestrel/utils/spatial_refs.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from moonseg_jax.errors import UserError

SpatialRefs = Sequence[Sequence[float]]
"""Points `(x, y)` and boxes `(x_min, y_min, x_max, y_max)`, in units of the image."""


def prompt_references(refs: SpatialRefs) -> tuple[tuple[float, ...], ...]:
    """Points as they are, boxes as `(cx, cy, w, h)`, which is what `types.Example.references` holds.

    Args:
      refs: see `SpatialRefs`.

    Raises:
      UserError: another number of values, a place outside the image, or a box whose corners are exchanged.
    """
    return tuple(_reference(ref) for ref in refs)


def reference_from_text(text: str) -> tuple[float, ...]:
    """`X,Y` or `X_MIN,Y_MIN,X_MAX,Y_MAX` as numbers.

    Raises:
      UserError: something that is no number.
    """
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UserError(f"spatial reference {text!r}: give X,Y or X_MIN,Y_MIN,X_MAX,Y_MAX, from 0 to 1") from error


def _reference(ref: Sequence[float]) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in ref)
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (2, 4) or not all(0.0 <= value <= 1.0 for value in values):
        raise UserError(
            f"spatial reference {ref!r}: give (x, y) or (x_min, y_min, x_max, y_max) inside the image, whose sides "
            "run from 0 to 1"
        )
    if len(values) == 2:
        return values
    x0, y0, x1, y1 = values
    if x1 < x0 or y1 < y0:
        raise UserError(
            f"spatial reference {ref!r}: a box is (x_min, y_min, x_max, y_max) with x_min <= x_max and y_min <= y_max: "
            "its upper left and its lower right corner"
        )
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
