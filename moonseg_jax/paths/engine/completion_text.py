"""Tokens of a completion → SVG path text, word for word as the official engine reads and writes it.

Source: the engine's grammar of path text (specification, section 9). Nothing here constrains what a policy
writes; text that is no path is refused with the words the engine's answer carries in `parse_error`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.path_data import COMMAND_NUMBERS
from moonseg_jax.paths.svg import format_number
from moonseg_jax.paths.vocabulary import Vocabulary

Grouped = list[str | tuple[int, int]]
"""Command letters, each followed by its pairs of integers in the 960-unit box."""


class CompletionTextError(UserError):
    """A completion that is no path text; `engine_message` is what the official engine says of it."""

    def __init__(self, position: int, piece: str, engine_message: str):
        super().__init__(
            f"path text, piece {position}: {piece!r} is neither a command letter where one is due, nor an integer; "
            "sample with the grammar mask, which cannot write this"
        )
        self.engine_message = engine_message


def group_pieces(pieces: Sequence[str]) -> Grouped:
    """Groups the pieces of a completion (see `Vocabulary.pieces`) into commands and pairs of integers.

    A `-` negates the integer after it. The odd last number of a command is dropped: so `H` and `V` lose their
    argument and `A` its seventh.

    Raises:
      CompletionTextError: a number before any command, a lone `-` at the end, or a piece that is no integer.
    """
    grouped: Grouped = []
    numbers: list[int] = []
    negative = False
    for position, piece in enumerate(pieces):
        if piece in COMMAND_NUMBERS and not negative:
            grouped += [*_pairs(numbers), piece]
            numbers = []
        elif not grouped:
            raise CompletionTextError(position, piece, f"Unexpected SVG token '{piece}'")
        elif piece == "-" and not negative:
            negative = True
        else:
            numbers.append(-_integer(position, piece) if negative else _integer(position, piece))
            negative = False
    if negative:
        raise CompletionTextError(len(pieces) - 1, "-", "Unexpected SVG token '-'")
    return grouped + _pairs(numbers)


def _pairs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2]))


def _integer(position: int, piece: str) -> int:
    try:
        return int(piece)
    except ValueError as error:
        raise CompletionTextError(position, piece, str(error)) from error


def scaled_words(grouped: Iterable[str | tuple[int, int]]) -> list[str]:
    """Words of the path in units of the box: letters, and numbers with at most three decimals."""
    words: list[str] = []
    for item in grouped:
        words += [item] if isinstance(item, str) else [format_number(number / PATH_UNITS) for number in item]
    return words


def path_from_tokens(token_ids: Iterable[int], vocabulary: Vocabulary) -> str:
    """SVG path text, in units of the box, that a completion writes.

    Raises:
      CompletionTextError: see `group_pieces`.
    """
    return " ".join(scaled_words(group_pieces(vocabulary.pieces(token_ids))))


def next_chunk(words: Sequence[str], start: int) -> tuple[int, str]:
    """The next command with its numbers that a stream may send, as soon as it has all it needs.

    Args:
      words: of the path so far.
      start: how many were sent.

    Returns:
      How many are sent with it, and the chunk; `start` and nothing while the command is not complete.
    """
    letter = next((at for at in range(start, len(words)) if words[at] in COMMAND_NUMBERS), len(words))
    end = next((at for at in range(letter + 1, len(words)) if words[at] in COMMAND_NUMBERS), len(words))
    if letter == len(words) or end - letter - 1 < COMMAND_NUMBERS[words[letter]]:
        return start, ""
    return end, " ".join(words[letter:end])
