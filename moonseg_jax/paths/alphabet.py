"""What a tokenizer can write and read of paths: a report for people and programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.paths.vocabulary import (
    COMMANDS,
    LAST_RESERVED_ID,
    Vocabulary,
    is_path_piece,
    progressions,
    token_pieces,
)

Meaning = TypeVar("Meaning", bound=Hashable)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlphabetReport:
    """The path alphabet of a tokenizer. Of several ids of one meaning the first is written, all are read."""

    tokenizer: str
    ids: int
    """Ids the tokenizer knows."""
    commands: Mapping[str, tuple[int, ...]]
    """Letter → its ids, ascending."""
    minus: tuple[int, ...]
    """Ids of `-`, ascending."""
    integers: tuple[int, ...]
    """The integers up to 960 that can be written, ascending."""
    integer_ids: Mapping[int, tuple[int, ...]]
    """Every integer that has a token, those above 960 too → its ids, ascending."""
    reserved: Mapping[int, str]
    """Ids up to 20 that decode to a piece of a path, and are never taken for one → the piece."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The integers up to 960 without a token; paths are drawn without them."""
        return tuple(sorted(set(range(PATH_UNITS + 1)) - set(self.integers)))

    @property
    def finest_step(self) -> int | None:
        """The smallest divisor of 960 all of whose multiples have a token: what to set `paths.coordinate_step` to."""
        present = set(self.integers)
        divisors = (step for step in range(1, PATH_UNITS + 1) if PATH_UNITS % step == 0)
        return next((step for step in divisors if present.issuperset(range(0, PATH_UNITS + 1, step))), None)

    @property
    def largest_gap(self) -> int:
        """Largest distance between neighbours that can be written, in units of 1/960 of the box; half is the error."""
        return int(np.diff(self.integers).max())

    def to_json(self) -> dict[str, object]:
        """All of it as plain values."""
        return {
            **dataclasses.asdict(self),
            "missing": self.missing,
            "finest_step": self.finest_step,
            "largest_gap": self.largest_gap,
        }

    def text(self) -> str:
        """All of it in lines for people."""
        letters = [letter for letter in COMMANDS if letter in self.commands]
        absent = "".join(letter for letter in COMMANDS if letter not in self.commands)
        missing, above = self.missing, [number for number in self.integer_ids if number > PATH_UNITS]
        step = self.finest_step
        lines = [
            f"tokenizer    {self.tokenizer}: {self.ids} ids",
            "commands     " + "  ".join(f"{letter} {_ids(self.commands[letter])}" for letter in letters)
            + (f"; no token for {' '.join(absent)}" if absent else ""),
            f"minus        {_ids(self.minus) or 'no token: numbers below 0 cannot be written'}",
            f"integers     {len(self.integers)} of {PATH_UNITS + 1} up to {PATH_UNITS}: {_runs(self.integers)}",
            f"missing      {len(missing)}" + (f": {_runs(missing)}" if missing else ""),
            f"largest gap  {self.largest_gap} of {PATH_UNITS} units",
            "finest grid  " + (f"coordinate_step {step}" if step else "none: some multiple is missing at every step"),
            f"above {PATH_UNITS}    {len(above)} integers" + (f": {_runs(above)}" if above else ""),
            "duplicates   " + (_duplicates(self) or "none"),
            f"ids 0–{LAST_RESERVED_ID}     "
            + (", ".join(f"{token} is {piece!r}, never path text" for token, piece in self.reserved.items())
               or "none decodes to a piece of a path"),
        ]  # fmt: skip
        return "\n".join(lines)


def alphabet_report(vocabulary: Vocabulary) -> AlphabetReport:
    """Reports on the tokenizer of a vocabulary, at every integer whatever its `coordinate_step`."""
    pieces = token_pieces(vocabulary.tokenizer)
    numbers = dict(sorted(_by_meaning(vocabulary.token_values).items()))
    return AlphabetReport(
        tokenizer=vocabulary.paths.tokenizer,
        ids=vocabulary.size,
        commands=_by_meaning(vocabulary.token_commands),
        minus=tuple(token for token, piece in pieces.items() if piece == "-" and token > LAST_RESERVED_ID),
        integers=tuple(number for number in numbers if number <= PATH_UNITS),
        integer_ids=numbers,
        reserved={
            token: piece for token, piece in pieces.items() if token <= LAST_RESERVED_ID and is_path_piece(piece)
        },
    )


def _by_meaning(meaning: Mapping[int, Meaning]) -> dict[Meaning, tuple[int, ...]]:
    ids: dict[Meaning, tuple[int, ...]] = {}
    for token in sorted(meaning):
        ids[meaning[token]] = (*ids.get(meaning[token], ()), token)
    return ids


def _runs(numbers: Sequence[int]) -> str:
    return ", ".join(progressions(numbers))


def _ids(ids: Sequence[int]) -> str:
    return "/".join(map(str, ids))


def _duplicates(report: AlphabetReport) -> str:
    meanings = [*report.commands.items(), ("-", report.minus), *report.integer_ids.items()]
    return "; ".join(
        f"{meaning}: {ids[0]} is written, {_ids(ids[1:])} read too" for meaning, ids in meanings if len(ids) > 1
    )
