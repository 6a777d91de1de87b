"""The folder of one evaluation: made, taken up again, or refused with what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import CONFIG_FILE, RunDirectory, read_json
from moonseg_jax.storage import require_readable

KIND = "eval"
MAY_DIFFER = ("batch", "refine_batch", "checkpoint.folder", "refiner.folder")
"""What changes no answer: batches, and where the same weights lie."""
OWN_FILES = ("config.json", "samples.jsonl", "samples-*.jsonl", "samples.jsonl.partial", "metrics.json", "table.md")


def open_folder(out: Path, config: dict[str, Any], *, fresh: bool) -> None:
    """Makes the folder of a new evaluation, or checks that the one there is the same.

    Args:
      out: the folder.
      config: what the evaluation is a function of.
      fresh: remove an evaluation that is there, whatever it was.

    Raises:
      UserError: the folder holds something else, or an evaluation with another config.
    """
    require_readable(out)
    text = json.dumps(config)
    if fresh:
        _remove_evaluation(out)
    if not (out / CONFIG_FILE).exists():
        left = [path.name for pattern in OWN_FILES for path in out.glob(pattern)] if out.is_dir() else []
        if left:
            raise UserError(f"{out} holds {left[0]} but no {CONFIG_FILE} that says of what: name another --out")
        RunDirectory.create(out, KIND, text, resumable=False)
        return
    try:
        RunDirectory.resume(out, KIND, text, may_differ=MAY_DIFFER)
    except UserError as error:
        raise UserError(f"{error}, or start over with --fresh") from error


def withdraw(out: Path) -> None:
    """Gives the folder back where no sample was judged: another evaluation may then be written there."""
    if not any(path.read_bytes() for path in out.glob("samples*.jsonl")):
        _remove_evaluation(out)


def _remove_evaluation(out: Path) -> None:
    """Removes an evaluation's files; any other run's folder is refused."""
    if not (out / CONFIG_FILE).exists():
        return
    kind = read_json(out / CONFIG_FILE, missing="").get("kind")
    if kind != KIND:
        raise UserError(f"{out} holds a run of kind {kind!r}, which --fresh does not remove: name another --out")
    for pattern in OWN_FILES:
        for path in out.glob(pattern):
            path.unlink()
