"""What the ensemble said, scene by scene, on disk: a cleaning that was stopped goes on, and thresholds can be changed
without asking the ensemble again.

OUT/measured.jsonl   the first line is what the measurements depend on, then a line for every scene
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import flat_settings

FILE = "measured.jsonl"


class MeasurementLog:
    """The file of one cleaning; a last line that a kill cut short is measured again."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        """Opens the file; it is begun with the first scenes, so that weights that cannot be loaded leave none.

        Args:
          folder: that exists.
          settings: what the measurements depend on, as JSON has it.

        Raises:
          UserError: the file was begun with other settings, which are named; it is damaged; or it cannot be written.
        """
        self.path, self._settings = folder / FILE, settings
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
            whole = [line for line in lines if line.endswith("\n")]
            if whole:
                self._refuse_other(_object(whole[0], self.path, 1), settings)
            if whole != lines:
                partial = self.path.with_name(FILE + ".partial")
                partial.write_text("".join(whole), encoding="utf-8")
                os.replace(partial, self.path)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}; name another --out") from error
        self.scenes = max(len(whole) - 1, 0)

    def append(self, scenes: list[list[Measurement]]) -> None:
        """Writes the measurements of the next scenes, a list for each, and flushes them.

        Raises:
          UserError: the disk is full or the file may not be written.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                if file.tell() == 0:
                    file.write(json.dumps(self._settings) + "\n")
                file.writelines(
                    json.dumps([_as_data(one) for one in found], allow_nan=False) + "\n" for found in scenes
                )
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}; make room and give the command again") from error
        self.scenes += len(scenes)

    def read(self) -> Iterator[list[Measurement]]:
        """The measurements of every scene, in order.

        Raises:
          UserError: a line is damaged; names it.
        """
        with open(self.path, encoding="utf-8") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                yield [_from_data(one) for one in _object(line, self.path, number)]

    def _refuse_other(self, before: Any, now: dict[str, Any]) -> None:
        found, wanted = flat_settings(before), flat_settings(json.loads(json.dumps(now)))
        changed = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        if changed:
            named = ", ".join(f"{name} (was {found.get(name)!r}, now {wanted.get(name)!r})" for name in changed)
            raise UserError(
                f"{self.path.parent} was measured with other settings: {named}; restore them or name another --out"
            )


def run_lengths(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """COCO compressed run-length encoding as JSON has it: `counts` a text, `size` height and width."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"counts": encoded["counts"].decode("ascii"), "size": [int(side) for side in mask.shape]}


def _as_data(found: Measurement) -> dict[str, Any]:
    return {
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        "consensus": run_lengths(found.consensus),
    }


def _from_data(data: dict[str, Any]) -> Measurement:
    encoded = {**data["consensus"], "counts": data["consensus"]["counts"].encode("ascii")}
    return Measurement(
        **{**data, "consensus": coco_mask.decode(encoded).astype(bool), "unrefined": tuple(data["unrefined"])}
    )


def _object(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error.msg}); remove the file and measure again") from error
