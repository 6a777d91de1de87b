"""`samples.jsonl`: one JSON object a line, in the order of the split; an evaluation goes on where its log ends."""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from moonseg_jax.errors import UserError
from moonseg_jax.evaluation.judging import Overlap, Record, Trivial
from moonseg_jax.evaluation.rows import Place
from moonseg_jax.scoring.sample_score import SampleScore
from moonseg_jax.storage import GrowingObject, in_bucket, write_whole

SAMPLES_FILE = "samples.jsonl"
COUNTS = (
    "predicted", "true", "size", "intersection", "near_both", "near_either", "relative_both", "relative_either",
)  # fmt: skip
"""Fields of `SampleScore` in the order in which a line lists them; the four of `boundary` follow."""


WRITE_SECONDS = 20.0
"""A log in a bucket is written whole, and so not after every block; what a kill takes is judged again."""


def share_file(folder: Path, share: int, shares: int) -> Path:
    """The log of one process: `samples.jsonl`, or `samples-0.jsonl`, … where there are several."""
    return folder / (SAMPLES_FILE if shares == 1 else f"samples-{share}.jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a log has come."""

    after: Place | None
    """Of its last sample; None where it is empty."""
    count: int
    iou_sum: float
    """Of the final masks."""
    seconds: float
    """That the evaluation had taken at the last line."""


class SampleLog:
    """The log of one process, open for appending; a context manager."""

    def __init__(self, file: Path):
        """Opens or makes the file; a last line that was cut short is cut off.

        Raises:
          UserError: another line is broken.
        """
        self._object: GrowingObject | None = None
        if in_bucket(file):
            if not file.exists():
                file.write_text("")
            self._object = GrowingObject(file)
        else:
            file.touch()
            _cut_torn_line(file)
        after, count, iou_sum, seconds = None, 0, 0.0, 0.0
        for line in read_lines(file):
            after, seconds = Place(scene=line["scene"], position=line["position"]), line["seconds"]
            count += 1
            iou_sum += line["iou"]
        self.standing = Standing(after=after, count=count, iou_sum=iou_sum, seconds=seconds)
        self._stream = open(file, "a", encoding="utf-8") if self._object is None else None

    def __enter__(self) -> SampleLog:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file; in a bucket, writes what is left."""
        if self._object is not None:
            self._object.flush()
        elif self._stream is not None:
            self._stream.close()

    def append(self, records: Iterable[Record], seconds: float) -> None:
        """Writes records down; when this returns they are on disk, or go to the bucket with later ones.

        Args:
          records: in the order of the split, after those that are there.
          seconds: that the evaluation has taken so far.
        """
        lines = "".join(_line(record, seconds) for record in records)
        if self._object is not None:
            self._object.append(lines, at_most_every=WRITE_SECONDS)
            return
        assert self._stream is not None
        self._stream.write(lines)
        self._stream.flush()
        os.fsync(self._stream.fileno())


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log as JSON objects.

    Raises:
      UserError: a line is broken; names it.
    """
    with file.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            try:
                line = json.loads(text)
                found = line["scene"], line["position"], line["seconds"], line["iou"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise UserError(
                    f"{file}, line {number}: not a sample ({error!r}); start over with --fresh or name another --out"
                ) from error
            del found
            yield line


def merge_logs(files: Sequence[Path], merged: Path) -> None:
    """Writes the lines of several processes as one log in the order of the split, never all at once in memory.

    Raises:
      UserError: a log is missing or broken.
    """
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{', '.join(missing)}: missing; all processes must write to one shared folder")
    lines = heapq.merge(*(read_lines(file) for file in files), key=lambda line: (line["scene"], line["position"]))
    texts = (json.dumps(line, allow_nan=False) + "\n" for line in lines)
    if in_bucket(merged):
        write_whole(merged, "".join(texts))
        return
    partial = merged.with_name(merged.name + ".partial")
    with open(partial, "w", encoding="utf-8") as target:
        target.writelines(texts)
    os.replace(partial, merged)


def score_of(line: dict[str, Any], stage: str) -> SampleScore:
    """The score of a stage, `coarse` or `refined`, that a line holds."""
    counts = line["counts"][stage]
    first = dict(zip(COUNTS, counts))
    return SampleScore(id=line["id"], status=line["status"], boundary=tuple(counts[len(COUNTS) :]), **first)


def _line(record: Record, seconds: float) -> str:
    stages = {"coarse": record.coarse, "refined": record.refined}
    line = {
        "id": record.final.id, "scene": record.place.scene, "position": record.place.position,
        "image_id": record.image_id, "phrase": record.phrase, "box": record.box, "path": record.path,
        "rle": record.rle, "iou": record.final.iou, "coarse_iou": record.coarse.iou, "status": record.final.status,
        "counts": {name: _counts(score) for name, score in stages.items() if score is not None},
        "sampled": _pair(record.sampled), "trivial": _trivial_fields(record.trivial), "seconds": round(seconds, 3),
    }  # fmt: skip
    return json.dumps(line, allow_nan=False) + "\n"


def _counts(score: SampleScore) -> list[int]:
    return [*(getattr(score, name) for name in COUNTS), *score.boundary]


def _pair(overlap: Overlap | None) -> list[int] | None:
    return None if overlap is None else [overlap.intersection, overlap.union]


def _trivial_fields(trivial: Trivial | None) -> dict[str, Any] | None:
    if trivial is None:
        return None
    return {
        "filled_box": _pair(trivial.filled_box), "ellipse": _pair(trivial.ellipse), "hull": _pair(trivial.hull),
        "flood_fill": _pair(trivial.flood_fill), "other_object": trivial.other_object,
        "any_object": trivial.any_object,
    }  # fmt: skip


def _cut_torn_line(file: Path) -> None:
    """Cuts off what follows the last line's end."""
    window = 1 << 20
    with open(file, "rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(end - window, 0)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                stream.truncate(start + found + 1)
                return
            end = start
        stream.truncate(0)
