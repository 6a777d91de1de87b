"""What is known of the complete data sets: counts of their splits, and where their files live."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from data_pipelines.refer.refs import Reference
from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Size of a split; None where it is not known."""

    sentences: int | None = None
    references: int | None = None
    images: int | None = None


def _counts(sentences: int, references: int, images: int) -> SplitCounts:
    return SplitCounts(sentences=sentences, references=references, images=images)


KNOWN_COUNTS: dict[tuple[str, str], dict[str, SplitCounts]] = {
    ("refcoco", "unc"): {
        "train": SplitCounts(references=42_404),
        "val": _counts(10_834, 3_811, 1_500),
        "testA": _counts(5_657, 1_975, 750),
        "testB": _counts(5_095, 1_810, 750),
    },
    ("refcoco+", "unc"): {
        "val": _counts(10_758, 3_805, 1_500),
        "testA": _counts(5_726, 1_975, 750),
        "testB": _counts(4_889, 1_798, 750),
    },
    ("refcocog", "umd"): {"val": _counts(4_896, 2_573, 1_300)},
}
"""(data set, split by) → split → counts."""

DEFAULT_SPLIT_BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd", "grefcoco": "unc"}
SPLITS_BY = {
    "refcoco": ("unc", "google"), "refcoco+": ("unc", "google"), "refcocog": ("umd", "google"), "grefcoco": ("unc",),
}  # fmt: skip

_REFER = "https://github.com/lichengunc/refer"
_WEB_ARCHIVE = "https://web.archive.org/web/{stamp}/https://bvisionweb1.cs.unc.edu/licheng/referit/data/{name}.zip"
ARCHIVES = {
    "refcoco": _WEB_ARCHIVE.format(stamp="20220413011718", name="refcoco"),
    "refcoco+": _WEB_ARCHIVE.format(stamp="20220413011656", name="refcoco+"),
    "refcocog": _WEB_ARCHIVE.format(stamp="20220413012904", name="refcocog"),
    "grefcoco": "https://github.com/henghuiding/gRefCOCO",
}


def expressions_file(name: str, split_by: str) -> str:
    """The name of the file of expressions.

    Raises:
      UserError: the data set was never split that way.
    """
    if split_by not in SPLITS_BY[name]:
        raise UserError(f"--split-by {split_by}: {name} is split by {' or '.join(SPLITS_BY[name])}")
    return f"grefs({split_by}).json" if name == "grefcoco" else f"refs({split_by}).p"


def what_is_needed(name: str, split_by: str) -> str:
    """What the builder reads and where it is known to live; a few lines of text."""
    return (
        f"{name} needs {expressions_file(name, split_by)} and instances.json (--from), and the photos of COCO\n"
        f"(--images; train2014, or train2017 and val2017 together: https://cocodataset.org/#download).\n"
        f"Expressions: {ARCHIVES[name]}\n"
        f"The format is that of {_REFER}, whose own server is gone."
    )


def refuse_other_counts(name: str, split_by: str, references: Sequence[Reference]) -> None:
    """Compares a whole file with what is known of it.

    Raises:
      UserError: a split is missing or its counts differ; says by how much.
    """
    entries: dict[str, list[Reference]] = collections.defaultdict(list)
    for entry in references:
        entries[entry.split].append(entry)
    differences = []
    for split, known in KNOWN_COUNTS.get((name, split_by), {}).items():
        found = SplitCounts(
            sentences=sum(len(entry.sentences) for entry in entries[split]), references=len(entries[split]),
            images=len({entry.image_id for entry in entries[split]}),
        )  # fmt: skip
        for field in dataclasses.fields(SplitCounts):
            wanted, seen = getattr(known, field.name), getattr(found, field.name)
            if wanted is not None and wanted != seen:
                differences.append(f"{split} has {seen} {field.name}, not {wanted} ({seen - wanted:+})")
    if differences:
        raise UserError(
            f"{name} ({split_by}) is not complete: {'; '.join(differences)}; "
            "get the whole file, or say --partial where it is cut down on purpose"
        )
