"""Writing a data set into a folder: claim the folder, run the TFDS builder, say what was written."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
from collections.abc import Callable, Iterator

import rich.progress
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from rich.console import Console

from data_pipelines.manifest import DataManifest, read_manifest, write_manifest
from data_pipelines.record_builder import RecordBuilder
from moonseg_jax.errors import UserError

MISSING_IMAGES, REFUSED_PHRASES = "missing_images.txt", "refused_phrases.txt"
"""Lists that a builder may leave in the folder before the data set is there."""

MakeBuilder = Callable[[str, Callable[[], None]], RecordBuilder]
"""(data_dir, on_record) -> builder."""


def write_data_set(
    out: str | os.PathLike[str], manifest: DataManifest, make_builder: MakeBuilder, progress: bool
) -> DataManifest:
    """Writes a data set, or finds that it is already there.

    Args:
      out: folder of this machine, made if it does not exist.
      manifest: what is to be written.
      make_builder: makes the TFDS builder; its files must land in `manifest.path` below `out`.
      progress: show a bar on standard error.

    Returns:
      The manifest as it stands in the folder.

    Raises:
      UserError: if the folder cannot be written or holds something else.
    """
    folder = epath.Path(out)
    done = dataclasses.replace(manifest, complete=True)
    try:
        if _claim(folder, manifest, done):
            return done
        write_manifest(folder, manifest)
        with _bar(manifest, progress) as on_record, _quiet(), tempfile.TemporaryDirectory() as downloads:
            make_builder(os.fspath(folder), on_record).download_and_prepare(download_dir=downloads)
        write_manifest(folder, done)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the data set to {folder}: {reason}; name another folder") from error
    return done


def _claim(folder: epath.Path, manifest: DataManifest, done: DataManifest) -> bool:
    """Makes the folder; True if it already holds exactly this data set.

    Raises:
      UserError: if it holds something else. An unfinished build of the same data set may go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = read_manifest(folder)
    if found == done:
        return True
    if found is not None and found != manifest:
        raise UserError(
            f"{folder} already holds another data set ({_words(found)}; asked for: {_words(manifest)}); "
            "name another folder or remove that one"
        )
    if found is None and any(path.name not in (MISSING_IMAGES, REFUSED_PHRASES) for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no data set of this project; name another folder")
    return False


def _words(manifest: DataManifest) -> str:
    facts = {**manifest.settings, **manifest.splits}
    return " ".join([manifest.name, *(f"{key}={value}" for key, value in facts.items())])


@contextlib.contextmanager
def _bar(manifest: DataManifest, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar over all splits; yields what advances it by one scene."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=24),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(f"{manifest.name}: scenes", total=sum(manifest.splits.values()))
        yield lambda: bar.update(task, advance=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing bars and notices of its own."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        tfds.enable_progress_bar()
