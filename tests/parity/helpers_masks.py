"""Rendering, crop rectangles, cleaning, pasting and tracing of masks with our code."""

import re
from typing import Any

import cv2
import numpy as np
from helpers_fixture import Arrays, HelpersFixture, Records
from helpers_text import named_corners

from moonseg_jax.mask_cleaning import clean_mask
from moonseg_jax.paths.curves.refined_path import refined_path
from moonseg_jax.paths.engine.render import render_path
from moonseg_jax.paths.svg import svg_document
from moonseg_jax.refine import paste, pixel_rectangle

PASTED = (5, 4, 33, 29)
"""The rectangle that the fixture pastes its first mask into; it is recorded in the result alone."""

PASTED_INTO = (30, 40)


def renderings(fixture: HelpersFixture) -> tuple[Records, Arrays]:
    """Documents of paths, and what is drawn."""
    records, arrays = [], {}
    for case in fixture.recorded["render"]:
        box, height, width = case["bbox_cxcywh"], case["height"], case["width"]
        arrays[case["key"]] = render_path(case["path"], box, height, width)
        records.append({**case, "svg": svg_document(case["path"], box, width=width, height=height)})
    return {"render": records}, arrays


def rectangles(fixture: HelpersFixture) -> Records:
    """Crop rectangles of boxes."""
    records = []
    for case in fixture.recorded["expand_bbox"]:
        x0, y0, x1, y1 = (case["bbox"][side] for side in ("x_min", "y_min", "x_max", "y_max"))
        box = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
        records.append({**case, "out": list(pixel_rectangle(box, case["h"], case["w"]))})
    return {"expand_bbox": records}


def masks(fixture: HelpersFixture) -> Arrays:
    """Masks cleaned, and one pasted."""
    arrays = {
        f"clean{name.removeprefix('mask')}": clean_mask(mask != 0).astype(np.uint8)
        for name, mask in fixture.inputs.items()
        if re.fullmatch(r"mask\d+", name)
    }
    x0, y0, x1, y1 = PASTED
    inside = cv2.resize(fixture.inputs["mask0"], (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    return {**arrays, "paste": paste(inside != 0, PASTED, PASTED_INTO).astype(np.uint8)}


def tracings(fixture: HelpersFixture) -> Records:
    """Masks traced, as they are and cleaned."""
    records = []
    for case in fixture.recorded["trace"]:
        if "mask" in case:
            mask = fixture.inputs[case["mask"]] != 0
            boxes = {"cxcywh": case["cxcywh"]}
            records.append({"mask": case["mask"], "raw": _traced(mask), "cleaned": _traced(clean_mask(mask)), **boxes})
        else:
            mask = np.full(case["shape"], case["name"] == "full")
            traced = _traced(mask)
            if traced is not None:
                del traced["n_commands"]
            records.append({"name": case["name"], "shape": case["shape"], "raw": traced})
    return {"trace": records}


def _traced(mask: np.ndarray) -> dict[str, Any] | None:
    traced = refined_path(mask)
    if traced is None:
        return None
    commands = len(re.findall("[MLCz]", traced.path))
    return {"path": traced.path, "bbox": named_corners(traced.box), "n_commands": commands}
