"""Rows of RefCOCO-M's parquet files, read by schema."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from data_pipelines.coco.annotations import InstanceEntry, PhotoEntry
from data_pipelines.coco.photos import PhotoPlan, PhrasePlan, run_lengths
from moonseg_jax.errors import UserError

ROWS_AT_ONCE = 16
SAMPLE_FIELDS = {"id", "sentences", "mask"}


def parquet_files(source: str | os.PathLike[str]) -> list[epath.Path]:
    """The files of a folder in order of their names, or the one file that is named.

    Raises:
      UserError: there is none, or one of them has another schema.
    """
    path = epath.Path(source)
    files = sorted([*path.glob("*.parquet"), *path.glob("*/*.parquet")]) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise UserError(f"--from {path}: there is no parquet file; name RefCOCO-M's file or the folder that holds it")
    for file in files:
        _refuse_other_schema(file)
    return files


def read_rows(files: Sequence[epath.Path], columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, the wanted columns) of every row.

    Raises:
      UserError: a damaged file.
    """
    pyarrow, parquet = _pyarrow()
    for file in files:
        position = 0
        try:
            for batch in parquet.ParquetFile(os.fspath(file)).iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                for row in batch.to_pylist():
                    yield f"{file}: row {position}", row
                    position += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{file}: damaged after row {position} ({error}); download it again") from error


def plan_row(place: str, row: dict[str, Any], first_id: int) -> PhotoPlan:
    """The examples of a row: every sentence of every sample.

    Args:
      place: where the row stands, for errors.
      row: `image_id`, `file_name`, `samples`.
      first_id: the id of the first example.

    Raises:
      UserError: a field of another type, an empty phrase, or a mask that is no run-length encoding.
    """
    samples = row["samples"]
    if not isinstance(row["image_id"], int) or not isinstance(row["file_name"], str) or not samples:
        raise UserError(f"{place}: expected image_id, file_name and at least one of samples")
    size = (samples[0]["mask"] or {}).get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"{place}: samples[0].mask.size: expected [height, width], found {size!r:.60}")
    photo = PhotoEntry(id=row["image_id"], file_name=row["file_name"], height=size[0], width=size[1])
    phrases: list[PhrasePlan] = []
    for k, sample in enumerate(samples):
        counts = (sample["mask"] or {}).get("counts")
        text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        mask = {"size": (sample["mask"] or {}).get("size"), "counts": text}
        instance = InstanceEntry(
            id=k, image_id=photo.id, category_id=0, is_crowd=False, segmentation=mask
        )  # fmt: skip
        target = run_lengths(instance, photo, place)
        for sentence in sample["sentences"] or ():
            phrase = " ".join(sentence.split()) if isinstance(sentence, str) else ""
            if not phrase:
                raise UserError(f"{place}: samples[{k}].sentences: expected phrases, found {sentence!r:.60}")
            phrases.append(PhrasePlan(phrase=phrase, target=target, example_id=first_id + len(phrases)))
    if not phrases:
        raise UserError(f"{place}: samples: none has a sentence")
    return PhotoPlan(photo=photo, phrases=tuple(phrases))


def _refuse_other_schema(file: epath.Path) -> None:
    pyarrow, parquet = _pyarrow()
    try:
        schema = parquet.read_schema(os.fspath(file))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a parquet file ({error})") from error
    wanted = {
        "image": lambda kind: pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0,
        "image_id": pyarrow.types.is_integer,
        "file_name": pyarrow.types.is_string,
        "samples": lambda kind: (
            pyarrow.types.is_list(kind)
            and pyarrow.types.is_struct(kind.value_type)
            and {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)} >= SAMPLE_FIELDS
        ),
    }
    wrong = [name for name, fits in wanted.items() if name not in schema.names or not fits(schema.field(name).type)]
    if wrong:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise UserError(f"{file}: not the schema of RefCOCO-M ({', '.join(wrong)}); the file has {found:.300}")


def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, an extra of the package."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("reading parquet needs pyarrow: pip install 'moonseg-jax[parquet]'") from error
    return pyarrow, pyarrow.parquet
