"""An independent reader of completions, used to judge what the grammar lets through.

It works on words, with a regular expression for the whole sequence; it repairs nothing and drops nothing.
"""

from __future__ import annotations

import re

from moonseg_jax.config import PathConfig
from moonseg_jax.paths.vocabulary import Vocabulary

IMPLICIT = re.compile(r"@coord @coord @size( M \d+ \d+( \d+ \d+){2,} Z)+ \$( \$)*")
EXPLICIT = re.compile(r"@coord @coord @size( M \d+ \d+( L \d+ \d+){2,} Z)+ \$( \$)*")


def spell(token_ids: list[int], vocabulary: Vocabulary, paths: PathConfig) -> str:
    """One word per token: @coord, @size, $ for control tokens (no path letter is spelled so), else its text."""
    control = {paths.coord_token: "@coord", paths.size_token: "@size", paths.eos: "$"}
    return " ".join(control.get(token) or vocabulary.tokenizer.id_to_token(token) for token in token_ids)


def is_accepted(token_ids: list[int], vocabulary: Vocabulary, paths: PathConfig, *, explicit: bool = False) -> bool:
    """Whether a completion is proper to the last token."""
    text = spell(token_ids, vocabulary, paths)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    on_grid = all(number <= 960 and number % paths.coordinate_step == 0 for number in numbers)
    return on_grid and (EXPLICIT if explicit else IMPLICIT).fullmatch(text) is not None
