"""Token ids and what they mean: commands, integers, phrases and prompts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import TypeVar

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from tokenizers import Tokenizer

from moonseg_jax.config import PATH_UNITS, PathConfig
from moonseg_jax.errors import UserError
from moonseg_jax.storage import place

COMMANDS = "MLCQSTZHVAmlcqstzhva"
"""Command letters of SVG path text; the index in this string numbers them in tables."""

LAST_RESERVED_ID = 20
"""Ids up to here are control tokens, never path text."""

SHOWN_WORDS, SHOWN_LETTERS = 5, 40
"""Most unknown words of a message, and letters of each."""

_EMBEDDED = "embedded:"
Meaning = TypeVar("Meaning", int, str)
_INTEGER = re.compile(r"0|[1-9][0-9]{0,8}")


@flax.struct.dataclass
class TokenTables:
    """What every token of the vocabulary means in a path, as arrays for use on device.

    All spellings of a number or letter are listed here, so that unconstrained text is read in full.
    """

    values: Int[Array, " V"]
    """The integer a token stands for; -1 where it is none."""
    commands: Int[Array, " V"]
    """Index into `COMMANDS`; -1 where a token is no command."""
    number_ids: Int[Array, " n"]
    """The tokens that numbers are written with, by ascending number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A tokenizer seen as the alphabet of paths and phrases.

    Where several ids decode to the same number or letter, the lowest id is the one that is written;
    all of them are read.
    """

    tokenizer: Tokenizer
    paths: PathConfig
    integers: np.ndarray
    """int32[n], ascending: the multiples of `coordinate_step` up to 960 that have a token."""
    integer_ids: np.ndarray
    """int32[n]: the token of each of `integers`."""
    command_ids: Mapping[str, int]
    """Letter → token, for the letters of `COMMANDS` that exist."""
    minus_id: int | None
    token_values: Mapping[int, int]
    """Every token that is a non-negative integer → its value, duplicates and off-grid ones included."""
    token_commands: Mapping[int, str]
    """Every token that is a command letter → the letter, duplicates included."""

    @classmethod
    def from_config(cls, paths: PathConfig) -> Vocabulary:
        """Reads the tokenizer named in `paths.tokenizer` and finds its path alphabet.

        A token belongs to the alphabet if its id is above 20 and it decodes, alone and stripped, to a
        command letter, a non-negative integer or `-`. Integers of the grid that have no token are left
        out with a warning that names them.

        Raises:
          UserError: the tokenizer cannot be read, or it has no `M`, `L`, `Z` or fewer than two integers.
        """
        tokenizer = _load(paths.tokenizer)
        pieces = {token: piece for token, piece in token_pieces(tokenizer).items() if token > LAST_RESERVED_ID}
        token_values = {token: int(piece) for token, piece in pieces.items() if _INTEGER.fullmatch(piece)}
        token_commands = {token: piece for token, piece in pieces.items() if len(piece) == 1 and piece in COMMANDS}
        minus = [token for token, piece in pieces.items() if piece == "-"]
        command_ids = _lowest_id(token_commands)
        id_of_integer = _lowest_id(token_values)
        integers = [n for n in range(0, PATH_UNITS + 1, paths.coordinate_step) if n in id_of_integer]
        missing_letters = [letter for letter in "MLZ" if letter not in command_ids]
        if missing_letters or len(integers) < 2:
            raise UserError(
                f"paths.tokenizer {paths.tokenizer!r} cannot write paths: it has no token for "
                f"{' '.join(missing_letters) or 'at least two integers of 0..960'}; name another tokenizer"
            )
        _warn_of_missing_integers(paths, integers)
        return cls(
            tokenizer=tokenizer,
            paths=paths,
            integers=np.array(integers, np.int32),
            integer_ids=np.array([id_of_integer[n] for n in integers], np.int32),
            command_ids=command_ids,
            minus_id=min(minus, default=None),
            token_values=token_values,
            token_commands=token_commands,
        )

    @property
    def size(self) -> int:
        """Number of ids the tokenizer knows; the model's vocabulary may be larger."""
        return self.tokenizer.get_vocab_size()

    def tables(self, vocabulary_size: int) -> TokenTables:
        """Arrays over the model's vocabulary (`text.vocabulary`).

        Raises:
          UserError: a path token lies beyond the model's vocabulary.
        """
        return TokenTables(
            values=jnp.asarray(self.value_of_token(vocabulary_size)),
            commands=jnp.asarray(self.command_of_token(vocabulary_size)),
            number_ids=jnp.asarray(self.integer_ids),
        )

    def value_of_token(self, vocabulary_size: int) -> np.ndarray:
        """int32[vocabulary_size]: the integer of each token, -1 where it is none.

        Raises:
          UserError: a path token lies beyond the model's vocabulary.
        """
        return self._over_vocabulary(self.token_values, vocabulary_size)

    def command_of_token(self, vocabulary_size: int) -> np.ndarray:
        """int32[vocabulary_size]: index into `COMMANDS` of each token, -1 where it is no command.

        Raises:
          UserError: a path token lies beyond the model's vocabulary.
        """
        indices = {token: COMMANDS.index(letter) for token, letter in self.token_commands.items()}
        return self._over_vocabulary(indices, vocabulary_size)

    def _over_vocabulary(self, meaning: Mapping[int, int], vocabulary_size: int) -> np.ndarray:
        beyond = [token for token in meaning if token >= vocabulary_size]
        if beyond:
            raise UserError(
                f"text.vocabulary is {vocabulary_size}, but tokenizer {self.paths.tokenizer!r} uses id "
                f"{max(beyond)} in paths; set text.vocabulary to at least {self.size}"
            )
        table = np.full(vocabulary_size, -1, np.int32)
        for token, value in meaning.items():
            table[token] = value
        return table

    def encode_phrase(self, phrase: str) -> list[int]:
        """Tokens of a phrase. Embedded tokenizers know lower-case words only, so case is folded for them.

        Raises:
          UserError: the phrase is empty, has words outside a closed vocabulary, or fills more than the
            prompt bucket.
        """
        phrase = " ".join(phrase.split())
        if not phrase:
            raise UserError("the phrase is empty; say what to segment, for example 'the red star'")
        unknown_id = _unknown_id(self.tokenizer)
        encoding = self.tokenizer.encode(phrase.lower() if unknown_id is not None else phrase, add_special_tokens=False)
        unknown = [
            phrase[start:end] for token, (start, end) in zip(encoding.ids, encoding.offsets) if token == unknown_id
        ]
        if unknown:
            raise UserError(self._unknown_words(unknown))
        fixed = len(self.paths.prompt_prefix) + len(self.paths.prompt_suffix)
        room = self.paths.max_prompt_tokens - fixed
        if len(encoding.ids) > room:
            raise UserError(
                f"the phrase {_shortened(phrase)!r} has {len(encoding.ids)} tokens and the prompt bucket holds {room} "
                f"(paths.max_prompt_tokens = {self.paths.max_prompt_tokens}, {fixed} of them fixed); "
                "shorten it"
            )
        return list(encoding.ids)

    def _unknown_words(self, unknown: Sequence[str]) -> str:
        known = sorted(word for word in self.tokenizer.get_vocab() if word.isalpha() and len(word) > 1)
        lines = []
        words = list(dict.fromkeys(unknown))
        for word in words[:SHOWN_WORDS]:
            near = difflib.get_close_matches(_shortened(word.lower()), known, n=3)
            lines.append(f"{_shortened(word)!r}" + (f" (did you mean {', '.join(near)}?)" if near else ""))
        if len(words) > SHOWN_WORDS:
            lines.append(f"and {len(words) - SHOWN_WORDS} more")
        return (
            f"words outside the vocabulary of {self.paths.tokenizer!r}: {'; '.join(lines)}. "
            f"Known words: {' '.join(known)}"
        )

    def prompt(
        self, phrase: str, references: Iterable[Sequence[float]] = ()
    ) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, "P 2"]]:
        """Prompt after BOS and image: prefix, spatial references, phrase, suffix (specification, section 7).

        Args:
          phrase: what to segment.
          references: points `(x, y)` or boxes `(cx, cy, w, h)`, in units of the image.

        Returns:
          Token ids int32[P], and float32[P, 2]: a coordinate in the first entry, `(w, h)` at size tokens,
          0 elsewhere.

        Raises:
          UserError: see `encode_phrase`; or a reference has not 2 or 4 values in [0, 1], or the prompt does
            not fit `max_prompt_tokens`.
        """
        paths = self.paths
        tokens: list[tuple[int, float, float]] = [(token, 0.0, 0.0) for token in paths.prompt_prefix]
        for reference in references:
            tokens += reference_tokens(reference, paths)
        tokens += [(token, 0.0, 0.0) for token in (*self.encode_phrase(phrase), *paths.prompt_suffix)]
        if len(tokens) > paths.max_prompt_tokens:
            raise UserError(
                f"the prompt for {phrase!r} with its spatial references has {len(tokens)} tokens, more than "
                f"paths.max_prompt_tokens = {paths.max_prompt_tokens}; give fewer references or a shorter "
                "phrase"
            )
        ids = np.array([token for token, _, _ in tokens], np.int32)
        return ids, np.array([values for _, *values in tokens], np.float32)

    def pieces(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> list[str]:
        """Text of tokens above 20, each decoded alone and stripped, empty ones left out: the words of a path."""
        text_ids = [[int(token)] for token in token_ids if token > LAST_RESERVED_ID]
        texts = self.tokenizer.decode_batch(text_ids, skip_special_tokens=skip_special_tokens)
        return [piece for text in texts if (piece := text.strip())]

    def decode(self, token_ids: Iterable[int]) -> str:
        """All `pieces`, special tokens too, joined by blanks; for people and logs."""
        return " ".join(self.pieces(token_ids, skip_special_tokens=False))


def _shortened(text: str) -> str:
    """For messages, which are a line."""
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "…"


def embedded_tokenizer(name: str) -> str | None:
    """The JSON of an embedded tokenizer; None for a name that does not begin with `embedded:`."""
    if not name.startswith(_EMBEDDED):
        return None
    asset = resources.files("moonseg_jax") / "assets" / "tokenizers" / f"{name.removeprefix(_EMBEDDED)}.json"
    return asset.read_text(encoding="utf-8")


def _load(name: str) -> Tokenizer:
    """Loads `embedded:NAME` or a `tokenizers` JSON file."""
    try:
        text = embedded_tokenizer(name) or place(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"paths.tokenizer {name!r} cannot be read ({error}); use embedded:tiny, embedded:small or "
            "the path of a tokenizers JSON file"
        ) from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # The tokenizers library raises plain Exception for any malformed file.
        raise UserError(f"paths.tokenizer {name!r} is not a tokenizers JSON file ({error})") from error


def token_pieces(tokenizer: Tokenizer) -> dict[int, str]:
    """Text of every id, decoded alone and stripped, ascending by id."""
    ids = sorted(set(tokenizer.get_vocab().values()))
    texts = tokenizer.decode_batch([[token] for token in ids], skip_special_tokens=False)
    return {token: text.strip() for token, text in zip(ids, texts)}


def is_path_piece(piece: str) -> bool:
    """Whether a stripped text is a command letter, a non-negative integer or `-`."""
    return piece == "-" or (len(piece) == 1 and piece in COMMANDS) or _INTEGER.fullmatch(piece) is not None


def progressions(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers in few words: three or more in even steps as `0–960 by 30`, steps of 1 as `0–960`."""
    words: list[str] = []
    start = 0
    while start < len(numbers):
        end = start + 1
        step = numbers[end] - numbers[start] if end < len(numbers) else 0
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        if end - start < 3:
            end = start + 1
            words.append(f"{numbers[start]}")
        else:
            words.append(f"{numbers[start]}–{numbers[end - 1]}" + (f" by {step}" if step > 1 else ""))
        start = end
    return words


def _lowest_id(meaning: Mapping[int, Meaning]) -> dict[Meaning, int]:
    lowest: dict[Meaning, int] = {}
    for token in sorted(meaning):
        lowest.setdefault(meaning[token], token)
    return lowest


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """Id of the unknown token; None for open vocabularies, which spell any word."""
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")
    return None if unknown is None else tokenizer.token_to_id(unknown)


def _warn_of_missing_integers(paths: PathConfig, integers: Sequence[int]) -> None:
    present = set(integers)
    missing = [n for n in range(0, PATH_UNITS + 1, paths.coordinate_step) if n not in present]
    if missing:
        shown = " ".join(progressions(missing))
        warnings.warn(
            f"tokenizer {paths.tokenizer!r} has no token for {len(missing)} of the path integers "
            f"(coordinate_step {paths.coordinate_step}), paths are drawn without them: {shown}",
            stacklevel=3,
        )


def reference_tokens(reference: Sequence[float], paths: PathConfig) -> list[tuple[int, float, float]]:
    """A spatial reference as tokens: two coordinates, and a size for a box (specification, section 6).

    Args:
      reference: a point `(x, y)` or a box `(cx, cy, w, h)`, in units of the image.
      paths: names the coordinate and size tokens.

    Returns:
      Token id and its two values, of every token: a coordinate and 0, or (w, h).

    Raises:
      UserError: another number of values, or values outside [0, 1].
    """
    if len(reference) not in (2, 4) or not all(0.0 <= value <= 1.0 for value in reference):
        raise UserError(
            f"spatial reference {tuple(reference)}: give (x, y) or (cx, cy, w, h) with values from 0 to 1, "
            "in units of the image"
        )
    tokens = [(paths.coord_token, float(value), 0.0) for value in reference[:2]]
    if len(reference) == 4:
        tokens.append((paths.size_token, float(reference[2]), float(reference[3])))
    return tokens
