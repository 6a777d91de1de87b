"""The `full` grammar: every path that the official dialect can mean, as tables of the same automaton.

A subpath is `M`, then points and `L T Q S C` in either case, then `Z`; a number may have a `-`. Numbers of the
dialect come in pairs (specification, section 9), so `H` and `V` lose their argument and `A` its seventh: they mean
nothing and are not written.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from moonseg_jax.config import PathConfig
from moonseg_jax.paths.grammar import Grammar, grammar_from_transitions
from moonseg_jax.paths.vocabulary import Vocabulary

LEAST_POINTS = 3
"""Points of a subpath, control points counted: fewer enclose nothing."""


class FullTokenClass(enum.IntEnum):
    """What a token is to the automaton. Letters of either case that take as many points are one class."""

    COORDINATE = 0
    SIZE = 1
    MOVE = 2
    ONE_POINT = 3
    """`L` and `T`."""
    TWO_POINTS = 4
    """`Q` and `S`."""
    THREE_POINTS = 5
    """`C`."""
    CLOSE = 6
    MINUS = 7
    NUMBER = 8
    END = 9
    OTHER = 10
    """Everything the automaton never allows."""


_LETTERS = {
    FullTokenClass.MOVE: "Mm",
    FullTokenClass.ONE_POINT: "LlTt",
    FullTokenClass.TWO_POINTS: "QqSs",
    FullTokenClass.THREE_POINTS: "Cc",
    FullTokenClass.CLOSE: "Zz",
}
_STRIDES = {FullTokenClass.ONE_POINT: 1, FullTokenClass.TWO_POINTS: 2, FullTokenClass.THREE_POINTS: 3}
_FIRST_X = "x: point 1 of 1, 0 before"

Moves = dict[FullTokenClass, str]


def full_grammar(
    vocabulary: Vocabulary, paths: PathConfig, vocabulary_size: int, *, allow_no_target: bool = False
) -> Grammar:
    """Grammar of closed paths of lines and curves: a box, then one or more subpaths, then EOS.

    Every subpath begins with `M`, has at least three points (control points counted) and ends with `Z`. A letter
    may be left out where it repeats the one before; pairs after those of an `M` are line-tos. Letters that the
    vocabulary lacks are left out, and so is the minus.

    Args:
      vocabulary: the alphabet; only the lowest id of every letter and number is allowed.
      paths: names the control tokens.
      vocabulary_size: the model's `text.vocabulary`.
      allow_no_target: EOS may be the very first token.

    Raises:
      UserError: a token lies beyond the model's vocabulary.
    """
    transitions: dict[str, Moves] = {
        "centre x": {FullTokenClass.COORDINATE: "centre y"},
        "centre y": {FullTokenClass.COORDINATE: "size"},
        "size": {FullTokenClass.SIZE: "path"},
        "path": {FullTokenClass.MOVE: _FIRST_X},
        **dict(_subpath_states()),
        "closed": {FullTokenClass.MOVE: _FIRST_X, FullTokenClass.END: "ended"},
        "ended": {FullTokenClass.END: "ended"},
    }
    if allow_no_target:
        transitions["centre x"][FullTokenClass.END] = "ended"
    ids = vocabulary.command_ids
    members = {kind: [ids[letter] for letter in letters if letter in ids] for kind, letters in _LETTERS.items()}
    members |= {
        FullTokenClass.COORDINATE: [paths.coord_token],
        FullTokenClass.SIZE: [paths.size_token],
        FullTokenClass.MINUS: [] if vocabulary.minus_id is None else [vocabulary.minus_id],
        FullTokenClass.NUMBER: vocabulary.integer_ids.tolist(),
        FullTokenClass.END: [paths.eos],
    }
    return grammar_from_transitions(transitions, members, FullTokenClass.OTHER, vocabulary, vocabulary_size)


def _subpath_states() -> Iterator[tuple[str, Moves]]:
    """States between a letter and `Z`, with their moves.

    A state knows the points that a repetition of the current letter takes, which of them comes next, and how many
    the subpath has already, up to `LEAST_POINTS`.
    """
    for stride in _STRIDES.values():
        for before in range(LEAST_POINTS + 1):
            for point in range(1, stride + 1):
                place = f"point {point} of {stride}, {before} before"
                seen = min(before + 1, LEAST_POINTS)
                following = f"x: point {point + 1} of {stride}, {seen} before"
                if point == stride:
                    following = f"after {stride}, {seen} before"
                yield from _number_states("x", place, f"y: {place}")
                yield from _number_states("y", place, following)
            if before:
                yield f"after {stride}, {before} before", _repetition_moves(stride, before)


def _number_states(axis: str, place: str, following: str) -> Iterator[tuple[str, Moves]]:
    """A number is due; after a minus, one without."""
    minus = f"-{axis}: {place}"
    yield f"{axis}: {place}", {FullTokenClass.NUMBER: following, FullTokenClass.MINUS: minus}
    yield minus, {FullTokenClass.NUMBER: following}


def _repetition_moves(stride: int, before: int) -> Moves:
    """A repetition is complete: the next begins with or without a letter, or the subpath ends."""
    again = f"point 1 of {stride}, {before} before"
    moves = {FullTokenClass.NUMBER: f"y: {again}", FullTokenClass.MINUS: f"-x: {again}"}
    moves |= {kind: f"x: point 1 of {points}, {before} before" for kind, points in _STRIDES.items()}
    return moves | ({FullTokenClass.CLOSE: "closed"} if before == LEAST_POINTS else {})
