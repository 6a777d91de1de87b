"""Tokens of one completion → polygons, on the host: for answers, reports and people."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from moonseg_jax.paths.vocabulary import Vocabulary


def polygons_from_tokens(token_ids: Iterable[int], vocabulary: Vocabulary) -> list[Int[np.ndarray, "vertices 2"]]:
    """Subpaths of absolute `M`, `L`, `Z`, explicit or implicit line-tos, read as `edges_from_tokens` does.

    An odd last number after a letter is dropped; a vertex before the first `M` breaks the whole path, which
    then has no polygons.

    Args:
      token_ids: the completion up to its length; other tokens between are skipped.
      vocabulary: what tokens mean.

    Returns:
      int64[vertices, 2] each, (x, y) in the 960-unit box.
    """
    subpaths: list[list[tuple[int, int]]] = []
    pending: int | None = None
    for token in map(int, token_ids):
        letter, value = vocabulary.token_commands.get(token), vocabulary.token_values.get(token)
        if letter is not None:
            pending = None
            if letter == "M":
                subpaths.append([])
        elif value is not None and pending is None:
            pending = value
        elif value is not None and pending is not None:
            if not subpaths:
                return []
            subpaths[-1].append((pending, value))
            pending = None
    return [np.array(subpath, np.int64) for subpath in subpaths if subpath]
