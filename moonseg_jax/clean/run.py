"""The whole cleaning: measure every referred instance with the ensemble, decide, write what is kept and why not.

OUT/measured.jsonl        what the ensemble said, scene by scene, see `log`
OUT/validation-….parquet  what is kept, in RefCOCO-M's format
OUT/kept.jsonl            a line for every kept instance: numbers, phrases, both masks
OUT/dropped.jsonl         a line for every dropped instance, and for every phrase that is dropped by itself
OUT/contact_sheet.png     some of both, before and after
OUT/clean.json            settings and counts
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from data_pipelines.source import SceneSource, open_split
from moonseg_jax.clean.contact_sheet import write_contact_sheet
from moonseg_jax.clean.ensemble import Ensemble, EnsembleSettings, MemberWeights, find_members, load_ensemble
from moonseg_jax.clean.instances import DroppedPhrase, instances_of
from moonseg_jax.clean.log import FILE, MeasurementLog
from moonseg_jax.clean.parquet_file import RefCocoMFile, load_pyarrow
from moonseg_jax.clean.policy_answers import PolicyAnswers
from moonseg_jax.clean.rule import Rule
from moonseg_jax.clean.sample_of_verdicts import SampleOfVerdicts
from moonseg_jax.clean.verdicts import Counts, Verdict, as_data, judge_instance
from moonseg_jax.clean.word_screen import WordScreen, read_words
from moonseg_jax.errors import UserError
from moonseg_jax.policy import load_policy
from moonseg_jax.progress import Progress
from moonseg_jax.run_directory import write_json
from moonseg_jax.sweep.fingerprint import weights_fingerprint
from moonseg_jax.weights import POLICY, REFINER

SCENES_AT_ONCE = 8
"""Scenes measured between two lines of the log."""
KEPT, DROPPED, SHEET, SUMMARY = "kept.jsonl", "dropped.jsonl", "contact_sheet.png", "clean.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """What is cleaned, with what, by which rule."""

    data: Path
    split: str
    out: Path
    checkpoints: tuple[Path, ...]
    """Folders of refiner weights; none takes the shipped ones."""
    policy: Path | None
    """See `find_members`."""
    ensemble: EnsembleSettings
    ask_policy: bool
    """Whether the first member's policy is asked for every phrase."""
    rule: Rule
    words: Path | None
    """List of words, see `read_words`; None screens nothing."""
    limit: int | None
    """Most scenes, the first ones."""
    batch: int
    """Crops that are refined side by side."""


def clean(settings: CleanSettings) -> Counts:
    """Cleans a data set. Given again, it goes on where it stopped; another rule or word list costs no measuring.

    Raises:
      UserError: data, weights or the word list cannot be used; the folder holds something else or was measured with
        other settings; pyarrow is missing; or a batch of crops does not fit the device's memory.
    """
    load_pyarrow()
    screen = WordScreen(()) if settings.words is None else read_words(settings.words)
    source = open_split(settings.data, settings.split)
    scenes = len(source) if settings.limit is None else min(settings.limit, len(source))
    members = find_members(settings.checkpoints, settings.policy)
    _claim(settings.out)
    log = MeasurementLog(settings.out, measured_with(settings, source, members))
    if log.scenes < scenes:
        _measure(settings, source, scenes, members, log)
    counts = _decide(settings, source, scenes, screen, log)
    write_json(settings.out / SUMMARY, _summary(settings, source, members, screen, counts))
    return counts


def measured_with(settings: CleanSettings, source: SceneSource, members: Sequence[MemberWeights]) -> dict[str, Any]:
    """What the measurements depend on: data, weights, starts, and whether a policy was asked."""
    manifest = dataclasses.asdict(source.manifest)
    return {
        "data": {name: manifest[name] for name in ("name", "settings", "splits")}, "split": source.split,
        "members": [
            {"refiner": weights_fingerprint(one.refiner, REFINER), "policy": weights_fingerprint(one.policy, POLICY)}
            for one in members
        ],
        "ensemble": dataclasses.asdict(settings.ensemble), "ask_policy": settings.ask_policy,
    }  # fmt: skip


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / FILE).is_file():
            raise UserError(f"--out {folder} is not empty and holds no cleaning; name another folder")
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror or error}; name another folder") from error


def _measure(
    settings: CleanSettings, source: SceneSource, scenes: int, members: Sequence[MemberWeights], log: MeasurementLog
) -> None:
    ensemble = load_ensemble(members, settings.ensemble, settings.batch)
    answers = policy_answers(members[0], ensemble) if settings.ask_policy else None
    with Progress("clean: scenes", scenes, start=log.scenes) as progress:
        while log.scenes < scenes:
            numbers = range(log.scenes, min(log.scenes + SCENES_AT_ONCE, scenes))
            of_scene = [instances_of(source[number], number)[0] for number in numbers]
            instances = [one for found in of_scene for one in found]
            measured = ensemble.measure(instances)
            if answers is not None:
                measured = answers.compare(instances, measured)
            rest = iter(measured)
            log.append([[next(rest) for _ in found] for found in of_scene])
            progress.update(log.scenes)


def policy_answers(member: MemberWeights, ensemble: Ensemble) -> PolicyAnswers:
    """The first member's policy, with the first refiner, ready to be asked.

    Raises:
      UserError: its weights cannot be used.
    """
    policy, params = load_policy(member.policy)
    return PolicyAnswers(policy, params, ensemble.refiners[0])


def _decide(
    settings: CleanSettings, source: SceneSource, scenes: int, screen: WordScreen, log: MeasurementLog
) -> Counts:
    counts, kept_sample, dropped_sample = Counts(), SampleOfVerdicts(), SampleOfVerdicts()
    out = settings.out
    with RefCocoMFile(out) as file, _lines(out / KEPT) as kept_lines, _lines(out / DROPPED) as dropped_lines:
        for number, measured in zip(range(scenes), log.read(), strict=False):
            instances, dropped = instances_of(source[number], number)
            if len(instances) != len(measured):
                raise UserError(f"{log.path}, line {number + 2}: not of this data; remove the file and measure again")
            verdicts = [judge_instance(one, found, settings.rule, screen) for one, found in zip(instances, measured)]
            counts.add_scene(verdicts, dropped, asked=settings.ask_policy)
            for verdict in verdicts:
                (kept_sample if verdict.kept else dropped_sample).add(verdict)
                _write(kept_lines if verdict.kept else dropped_lines, as_data(verdict))
            for one in _dropped_phrases(verdicts, dropped):
                _write(dropped_lines, one)
            kept = [verdict for verdict in verdicts if verdict.kept]
            if kept:
                file.add(source.image_file(number), kept)
    title = f"{counts.kept_instances} of {counts.instances} instances kept"
    write_contact_sheet(out / SHEET, kept_sample.verdicts(), dropped_sample.verdicts(), title)
    return counts


def _dropped_phrases(verdicts: Sequence[Verdict], dropped: Sequence[DroppedPhrase]) -> Iterator[dict[str, Any]]:
    """Lines for phrases that are left out by themselves, with the word that was found in them."""
    screened = [(one, word) for verdict in verdicts for one, word in zip(verdict.screened, verdict.words)]
    for phrase, word in [*((one, None) for one in dropped), *screened]:
        yield {"what": "phrase", **dataclasses.asdict(phrase), "word": word}


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name when it is whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name another --out") from error


def _write(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")


def _summary(
    settings: CleanSettings, source: SceneSource, members: Sequence[MemberWeights], screen: WordScreen, counts: Counts
) -> dict[str, Any]:
    return {
        "counts": counts.as_data(),
        "rule": dataclasses.asdict(settings.rule),
        "words": {"file": settings.words and str(settings.words), "count": len(screen.words)},
        "weights": [{"refiner": str(one.refiner), "policy": str(one.policy)} for one in members],
        "measured_with": measured_with(settings, source, members),
    }
