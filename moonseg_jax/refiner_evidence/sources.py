"""Evidence by where the coarse masks come from, of weights on held-out scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from data_pipelines.shapes.scene import generate_scene
from data_pipelines.source import open_split
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import held_out_scenes
from moonseg_jax.policy import Policy
from moonseg_jax.refine import Refiner
from moonseg_jax.refiner_evidence.coarse_masks import CoarseMask, corrupted_masks, greedy_masks, outline_masks
from moonseg_jax.refiner_evidence.evidence import Evidence, measure
from moonseg_jax.refiner_evidence.outline_errors import sample_errors
from moonseg_jax.types import Scene

CoarseFrom = Literal["policy", "corrupted", "outlines"]
SOURCES: tuple[CoarseFrom, ...] = get_args(CoarseFrom)
"""The policy's greedy paths; ground truths corrupted as synthetic pairs are; traced ground truths with the errors of
the policy's samples. The last two need no policy that knows the images."""

KNOWN_SCENES = 64
"""On so many scenes errors of samples are measured."""
EMBEDDED_SEED, EMBEDDED_LEVEL = 5_000, 2
"""Where embedded scenes are taken from that no training has seen, as `moonseg eval` takes them."""


def gather(
    refiner: Refiner,
    policy: Policy,
    params: Any,
    scenes: Sequence[Scene],
    known: Callable[[], Sequence[Scene]],
    *,
    phrases: int,
    seed: int,
    coarse_from: Sequence[CoarseFrom] = SOURCES,
) -> dict[CoarseFrom, Evidence]:
    """Evidence for every source that is asked for.

    Args:
      refiner: with the head that is judged.
      policy: draws greedy paths, and the samples whose errors outlines are given.
      params: its parameters.
      scenes: held-out scenes, at least one.
      known: gives scenes of a kind that the policy knows; asked only where `outlines` are wanted.
      phrases: judged per scene, the first ones.
      seed: of samples, corruptions and errors.
      coarse_from: the sources, each once.

    Raises:
      UserError: no phrase has a target, no sample overlaps its object, or a batch of crops does not fit the memory.
    """
    draw: dict[CoarseFrom, Callable[[], list[CoarseMask]]] = {
        "policy": lambda: greedy_masks(policy, params, scenes, phrases),
        "corrupted": lambda: corrupted_masks(scenes, phrases, seed),
        "outlines": lambda: outline_masks(scenes, phrases, seed, sample_errors(policy, params, known(), seed)),
    }
    found = {}
    for source in coarse_from:
        masks = draw[source]()
        if not masks:
            raise UserError(
                f"none of the first {phrases} phrases of {len(scenes)} scenes has a target, so there is nothing to "
                f"make coarse masks of ({source}): judge more scenes or another split"
            )
        found[source] = measure(refiner, masks)
    return found


def known_scenes(data: Path | None, split: str) -> Callable[[], list[Scene]]:
    """Gives scenes of a kind that a policy knows, for `gather`.

    Args:
      data: data set; None draws embedded scenes.
      split: of that data set; the one the policy was trained on will do, only sizes of errors are taken from it.
    """

    def scenes() -> list[Scene]:
        if data is None:
            return embedded_scenes(KNOWN_SCENES)
        return held_out_scenes(open_split(data, split), KNOWN_SCENES)

    return scenes


def embedded_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Embedded scenes that no training has seen; others for every seed."""
    return [generate_scene(EMBEDDED_SEED + seed, index, EMBEDDED_LEVEL, "val") for index in range(count)]
