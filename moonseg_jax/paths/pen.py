"""Tokens of completions → cubic segments, on device: the official dialect as renderers draw it.

A pen reads one token after the other, all rows at once, and lays down at most one segment a token. Semantics:
specification, section 9, and SVG 1.1, section 8.3; `engine.completion_text` with `engine.path_data` is the same on
the host.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.paths.vocabulary import COMMANDS, LAST_RESERVED_ID, TokenTables, Vocabulary

_KINDS = COMMANDS[: len(COMMANDS) // 2]
_M, _L, _C, _Q, _S, _T, _Z, _H, _V, _A = (_KINDS.index(letter) for letter in "MLCQSTZHVA")
_POINTS = np.array([{"C": 3, "Q": 2, "S": 2}.get(letter, 1) for letter in _KINDS], np.int32)
"""Points that a repetition takes; `H` and `V` take a pair of arguments for one."""
_NONE = -1


@flax.struct.dataclass
class CurveTables(TokenTables):
    """What tokens mean where paths have curves and signs: tells `edges_from_tokens` to read all of the dialect."""

    is_minus: Bool[Array, " V"]
    """Whether a token is the sign of the number after it."""

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary, vocabulary_size: int) -> CurveTables:
        """Arrays over the model's vocabulary (`text.vocabulary`); all spellings of the minus are read.

        Raises:
          UserError: a path token lies beyond the model's vocabulary.
        """
        tables = vocabulary.tables(vocabulary_size)
        known = vocabulary.tokenizer.get_vocab().values()
        ids = [token for token in known if LAST_RESERVED_ID < token < vocabulary_size]
        texts = vocabulary.tokenizer.decode_batch([[token] for token in ids], skip_special_tokens=False)
        is_minus = np.zeros(vocabulary_size, bool)
        is_minus[[token for token, text in zip(ids, texts) if text.strip() == "-"]] = True
        return cls(
            values=tables.values,
            commands=tables.commands,
            number_ids=tables.number_ids,
            is_minus=jnp.asarray(is_minus),
        )


class Segments(NamedTuple):
    """Cubic Béziers, at most one per token, in path units (960 across the box); lines are cubics too.

    The line with which a subpath closes itself is left out.
    """

    points: Float[Array, "N T 4 2"]
    """Start, two control points, end."""
    valid: Bool[Array, "N T"]
    is_first: Bool[Array, "N T"]
    """Whether a segment is the first of its subpath; the others start where the one before ends."""
    is_line: Bool[Array, "N T"]
    subpath: Int[Array, "N T"]


class _Pen(NamedTuple):
    """The reader of one completion between two tokens."""

    kind: Int[Array, ""]
    """Index of the current letter in `_KINDS`."""
    relative: Bool[Array, ""]
    complete: Bool[Array, ""]
    """Whether the current letter has all it takes."""
    negative: Bool[Array, ""]
    x: Float[Array, ""]
    has_x: Bool[Array, ""]
    """Whether the first number of a pair is waiting for the second."""
    pairs: Float[Array, "3 2"]
    filled: Int[Array, ""]
    """Pairs of the current repetition so far."""
    at: Float[Array, "2"]
    start: Float[Array, "2"]
    control: Float[Array, "2"]
    """Last control point where `family` is C or Q."""
    family: Int[Array, ""]
    subpath: Int[Array, ""]
    drawn: Bool[Array, ""]
    """Whether the current subpath has segments."""
    stopped: Bool[Array, ""]
    """Whether an error ended the path here; what comes before it stays."""
    broken: Bool[Array, ""]
    """Whether the text is no path at all."""


def _fresh() -> _Pen:
    no, none, origin = jnp.array(False), jnp.array(_NONE), jnp.zeros(2)
    return _Pen(
        kind=none, relative=no, complete=no, negative=no, x=jnp.zeros(()), has_x=no, pairs=jnp.zeros((3, 2)),
        filled=jnp.array(0), at=origin, start=origin, control=origin, family=none, subpath=jnp.array(0), drawn=no,
        stopped=no, broken=no,
    )  # fmt: skip


def read_segments(
    token_ids: Int[Array, "N T"], lengths: Int[Array, " N"], tables: CurveTables
) -> tuple[Segments, Bool[Array, " N"]]:
    """Segments that completions draw.

    An odd last number after a letter is dropped. As renderers do, what comes before an error is kept: the first
    letter is no `M`, a letter lacks numbers, numbers follow a `Z`, or there is an arc (seven numbers never come in
    pairs). A number before any letter and a minus without its number make the whole text no path. Of the two
    arguments in a pair after `H` or `V` only the way to the second is drawn, which encloses the same area. Tokens
    that are neither letter, number nor minus are skipped.

    Args:
      token_ids: completions.
      lengths: tokens of each that count.
      tables: what tokens mean.

    Returns:
      Segments, and whether each completion was read to its end without error.
    """
    within = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    values = jnp.where(within, tables.values[token_ids], _NONE)
    commands = jnp.where(within, tables.commands[token_ids], _NONE)
    is_minus = within & tables.is_minus[token_ids]
    pen, segments = jax.vmap(lambda *row: jax.lax.scan(_read, _fresh(), row))(values, commands, is_minus)
    broken = pen.broken | pen.negative
    whole = ~broken & ~pen.stopped & (pen.complete | (pen.kind == _NONE))
    return segments._replace(valid=segments.valid & ~broken[:, None]), whole


def _read(pen: _Pen, token: tuple[Array, Array, Array]) -> tuple[_Pen, Segments]:
    """The pen after a token (integer, letter and whether a minus; -1 where it is none), and what it laid down."""
    value, command, is_minus = token
    is_number, is_letter = value >= 0, command >= 0
    is_minus = is_minus & ~is_number & ~is_letter
    early = (is_number | is_minus) & (pen.kind == _NONE)
    pen = pen._replace(broken=pen.broken | early | (pen.negative & (is_letter | is_minus)))
    lettered = _letter(pen, command)
    pen = jax.tree.map(lambda then, now: jnp.where(is_letter, then, now), lettered, pen)
    number = jnp.where(pen.negative, -value, value).astype(jnp.float32)
    ends_pair = is_number & pen.has_x
    pair = jnp.stack([pen.x, number])
    pen = pen._replace(
        negative=jnp.where(is_number, False, pen.negative | is_minus),
        x=jnp.where(is_number, number, pen.x),
        has_x=pen.has_x ^ is_number,
        pairs=jnp.where(ends_pair & (jnp.arange(3) == pen.filled)[:, None], pair, pen.pairs),
        filled=pen.filled + ends_pair,
        stopped=pen.stopped | (ends_pair & (pen.kind == _Z)),
        complete=pen.complete & ~ends_pair,
    )
    draws = (is_letter & (pen.kind == _Z)) | (ends_pair & (pen.filled == jnp.asarray(_POINTS)[pen.kind]))
    drawn, segment = _draw(pen)
    pen = jax.tree.map(lambda then, now: jnp.where(draws & ~pen.stopped, then, now), drawn, pen)
    return pen, segment._replace(valid=segment.valid & draws & ~drawn.stopped)


def _letter(pen: _Pen, command: Int[Array, ""]) -> _Pen:
    """The pen after a letter; one whose predecessor lacks numbers stops the path."""
    kind = command % len(_KINDS)
    wrong = jnp.where(pen.kind == _NONE, kind != _M, ~pen.complete) | (kind == _A)
    return pen._replace(
        kind=kind,
        relative=command >= len(_KINDS),
        complete=kind == _Z,
        has_x=jnp.array(False),
        filled=jnp.array(0),
        stopped=pen.stopped | wrong,
    )


def _draw(pen: _Pen) -> tuple[_Pen, Segments]:
    """The pen after one repetition of its letter, and the segment laid down."""
    kind, here = pen.kind, pen.at
    origin = jnp.where(pen.relative, here, 0.0)
    first, second, third = origin + pen.pairs
    cubic, quadratic = (kind == _C) | (kind == _S), (kind == _Q) | (kind == _T)
    reflected = jnp.where(pen.family == jnp.where(cubic, _C, _Q), 2 * here - pen.control, here)
    last = origin + pen.pairs[0, 1] + jnp.where(pen.relative, pen.pairs[0, 0], 0.0)
    ends = jnp.stack([
        first, first, third, second, second, first, pen.start,
        jnp.stack([last[0], here[1]]), jnp.stack([here[0], last[1]]), here,
    ])  # fmt: skip
    end = ends[kind]
    bend = jnp.where(kind == _Q, first, reflected)
    third_of_way = (end - here) / 3
    one = jnp.where(kind == _C, first, jnp.where(kind == _S, reflected, here + third_of_way))
    two = jnp.where(kind == _C, second, jnp.where(kind == _S, first, end - third_of_way))
    one = jnp.where(quadratic, here + (bend - here) * (2 / 3), one)
    two = jnp.where(quadratic, end + (bend - end) * (2 / 3), two)
    moves = kind == _M
    begins = moves | (kind == _Z)
    segment = Segments(
        points=jnp.stack([here, one, two, end]),
        valid=~begins,
        is_first=~pen.drawn,
        is_line=~cubic & ~quadratic,
        subpath=pen.subpath,
    )
    after = pen._replace(
        kind=jnp.where(moves, _L, kind),
        complete=jnp.array(True),
        filled=jnp.array(0),
        at=end,
        start=jnp.where(moves, end, pen.start),
        control=jnp.where(cubic, two, bend),
        family=jnp.where(cubic, _C, jnp.where(quadratic, _Q, _NONE)).astype(jnp.int32),
        subpath=pen.subpath + (begins & pen.drawn),
        drawn=jnp.where(begins, False, True),
    )
    return after, segment
