"""How a training run starts on all its processes: alike, in one folder that the first of them makes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Collection
from pathlib import Path

import jax
import jaxlib

import moonseg_jax
from moonseg_jax.bucket_errors import told
from moonseg_jax.processes import alone, require_same, succeed_together, text_of_first
from moonseg_jax.run_directory import CHECKPOINTS, CONFIG_FILE, RunDirectory, flat_settings
from moonseg_jax.storage import COMMITTED, files_under, in_bucket, move_folder, require_readable

BEGUN = "begun"
CONFIG, VERSIONS, COMMAND = "the config", "the version", "the command"


def open_run(
    out: Path, stage: str, config_text: str, *, resume: bool, may_differ: Collection[str] = ()
) -> RunDirectory:
    """The run's folder: made, or opened to go on, by process 0, while the others wait. All processes must call it.

    Args:
      out: the folder.
      stage: what runs in it.
      config_text: the run's config as JSON.
      resume: whether to go on with the run that is in it.
      may_differ: dotted names of settings that a resumed run may change.

    Raises:
      UserError: on every process the same: they differ in config, version or command (the difference is named), or
        the folder cannot be used.
    """
    texts = {CONFIG: config_text, VERSIONS: versions(), COMMAND: f"{stage} --out {out}" + " --resume" * resume}
    require_same(texts, difference)

    def open_folder() -> RunDirectory:
        if not alone() and jax.process_index() > 0:
            return RunDirectory(out, stage, config_text=config_text, may_differ=may_differ, beside=True)
        if resume:
            return RunDirectory.resume(out, stage, config_text, may_differ=may_differ)
        return RunDirectory.create(out, stage, config_text, may_differ=may_differ)

    return succeed_together(open_folder)


def has_begun(out: Path) -> bool:
    """Whether the folder holds a run with a finished checkpoint, as process 0 sees it; all processes must ask.

    A run that was stopped before its first checkpoint is moved aside, so that it can begin again.

    Raises:
      UserError: the folder cannot be read.
    """
    return text_of_first(succeed_together(lambda: _standing(out))) == BEGUN


def _standing(out: Path) -> str:
    if not alone() and jax.process_index() > 0:
        return ""
    with told(out):
        require_readable(out)
        files = files_under(out)
        if any(_is_of_finished_checkpoint(out, name) for name in files):
            return BEGUN
        if CONFIG_FILE in files:
            aside = out.with_name(f"{out.name}.unfinished-{time.strftime('%Y%m%dT%H%M%S')}")
            print(f"moonseg: {out} has no checkpoint yet: moved to {aside}", file=sys.stderr)
            move_folder(out, aside)
    return ""


def _is_of_finished_checkpoint(out: Path, name: str) -> bool:
    """By its name; in a bucket the mark that Orbax writes last must be there."""
    inside = COMMITTED if in_bucket(out) else ".*"
    return re.fullmatch(rf"{CHECKPOINTS}/\d+/{inside}", name) is not None


def versions() -> str:
    """Of the packages that must agree for programs to agree."""
    return f"moonseg-jax {moonseg_jax.__version__}, jax {jax.__version__}, jaxlib {jaxlib.__version__}"


def difference(name: str, first: str, other: str) -> str:
    """How two texts that should be the same differ; of configs, the settings."""
    if name != CONFIG:
        return f"{other!r}, not {first!r}"
    before, after = flat_settings(json.loads(first)), flat_settings(json.loads(other))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return ", ".join(f"{key} is {after.get(key)!r}, not {before.get(key)!r}" for key in changed)
