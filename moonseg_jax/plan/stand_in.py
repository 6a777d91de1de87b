"""A tokenizer of the right size where the model's own is not at hand: plans depend on shapes, not on words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tokenizers import Tokenizer, models

from moonseg_jax.config import PATH_UNITS, ModelConfig
from moonseg_jax.paths.vocabulary import COMMANDS, LAST_RESERVED_ID

PHRASE = "red"
"""A phrase that the embedded tokenizers and the stand-in can say."""


def with_stand_in(config: ModelConfig, folder: Path) -> ModelConfig:
    """The same sizes with a tokenizer that has every integer and letter of paths as one token, and one word.

    Args:
      config: of the model; an embedded tokenizer, or a file that exists, is kept.
      folder: where the stand-in is written.
    """
    named = config.paths.tokenizer
    if named.startswith("embedded:") or Path(named).is_file():
        return config
    pieces = [f"<{i}>" for i in range(LAST_RESERVED_ID + 1)]
    pieces += [str(number) for number in range(PATH_UNITS + 1)] + [*COMMANDS, "-", PHRASE]
    file = folder / "stand_in.json"
    Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[0])).save(str(file))
    return dataclasses.replace(config, paths=dataclasses.replace(config.paths, tokenizer=str(file)))
