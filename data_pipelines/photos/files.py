"""Finding the photos of a plan on disk, and which of them are missing or broken."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import rich.progress
from etils import epath
from rich.console import Console

from data_pipelines.coco.annotations import PhotoEntry
from data_pipelines.coco.photo_file import read_photo
from data_pipelines.coco.photos import PhotoPlan
from moonseg_jax.errors import UserError

THREADS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoFiles:
    """Where photos are, and which are not."""

    found: dict[int, epath.Path]
    """Image id: file that decodes to the size of its annotations."""
    missing: dict[int, str]
    """Image id: what is wrong, one line."""

    @property
    def count(self) -> int:
        """Of all photos."""
        return len(self.found) + len(self.missing)


def photo_names(photo: PhotoEntry) -> tuple[str, ...]:
    """The names a COCO photo goes by: its own, that of the 2017 archives, that of 2014."""
    own = photo.file_name.rpartition("/")[2]
    return tuple(
        dict.fromkeys(
            (own, f"{photo.id:012d}.jpg", *(f"COCO_{part}2014_{photo.id:012d}.jpg" for part in ("train", "val")))
        )
    )


def find_photos(
    splits: Mapping[str, Sequence[PhotoPlan]], images: str | os.PathLike[str], *, progress: bool
) -> PhotoFiles:
    """Looks for every photo in a folder and the folders in it, and decodes each once.

    Args:
      splits: photos per split.
      images: folder of the photos, or of `train2017`, `val2017` and the like.
      progress: show a bar on standard error.

    Raises:
      UserError: no such folder.
    """
    folder = epath.Path(images)
    if not folder.is_dir():
        raise UserError(f"images {images}: no such folder")
    files = {file.name: file for file in _files(folder)}
    photos = {plan.photo.id: plan.photo for plans in splits.values() for plan in plans}
    found: dict[int, epath.Path] = {}
    missing: dict[int, str] = {}
    console = Console(stderr=True)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        judged = pool.map(lambda photo: _judge(photo, files), photos.values())
        bar = rich.progress.track(judged, "photos checked", len(photos), console=console, disable=not progress)
        for (file, wrong), photo in zip(bar, photos.values()):
            if file is None:
                missing[photo.id] = wrong
            else:
                found[photo.id] = file
    return PhotoFiles(found=found, missing=missing)


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """Files of the folders in a folder, then its own: of two with one name the folder's own comes last and counts."""
    inside = list(folder.iterdir())
    for path in inside:
        if not path.suffix and path.is_dir():
            yield from path.iterdir()
    yield from inside


def _judge(photo: PhotoEntry, files: Mapping[str, epath.Path]) -> tuple[epath.Path | None, str]:
    """The photo's file, or None and what is wrong."""
    names = photo_names(photo)
    file = next((files[name] for name in names if name in files), None)
    if file is None:
        return None, f"image {photo.id}: missing, looked for {', '.join(names)}"
    try:
        read_photo(photo, file)
    except UserError as error:
        return None, f"image {photo.id}: {error}"
    return file, ""
