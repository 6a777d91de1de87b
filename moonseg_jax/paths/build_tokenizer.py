"""Builds an embedded tokenizer: control tokens, path commands, integers and a closed list of words.

    python -m moonseg_jax.paths.build_tokenizer WORDS.txt OUT.json --step 30 --limit 320

`WORDS.txt` has one lower-case word a line; `-` reads standard input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from moonseg_jax.config import PATH_UNITS
from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import COMMANDS, LAST_RESERVED_ID

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = f"<|md_reserved_{LAST_RESERVED_ID - 1}|>"
"""The last control token stands for unknown words; prompts never contain it."""


def build_tokenizer(words: Iterable[str], *, step: int, limit: int) -> Tokenizer:
    """Word-level tokenizer split at white space and punctuation.

    Ids: 0 end of text, 1..20 reserved, 21 `segment`, the command letters, `-`, the multiples of `step` from
    0 to 960, then the words in their order (a word that is already there, such as `a`, keeps its id).

    Args:
      words: lower-case words of the phrases.
      step: the preset's `coordinate_step`.
      limit: the preset's `text.vocabulary`.

    Raises:
      UserError: more than `limit` ids are needed.
    """
    control = [END_OF_TEXT, *(f"<|md_reserved_{index}|>" for index in range(LAST_RESERVED_ID))]
    integers = [str(number) for number in range(0, PATH_UNITS + 1, step)]
    tokens = list(dict.fromkeys([*control, "segment", *COMMANDS, "-", *integers, *words]))
    if len(tokens) > limit:
        raise UserError(f"the tokenizer needs {len(tokens)} ids, the preset has {limit}; use fewer words")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", help="file with one word a line, or - for standard input")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--step", type=int, required=True, help="coordinate_step of the preset")
    parser.add_argument("--limit", type=int, required=True, help="text.vocabulary of the preset")
    options = parser.parse_args()
    text = sys.stdin.read() if options.words == "-" else Path(options.words).read_text(encoding="utf-8")
    tokenizer = build_tokenizer(text.split(), step=options.step, limit=options.limit)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out))


if __name__ == "__main__":
    main()
