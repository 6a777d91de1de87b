"""The ensemble: refiners times starts, each of which draws every instance again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moonseg_jax.clean.agreement import Measurement, measure_members
from moonseg_jax.clean.instances import Instance
from moonseg_jax.clean.starts import starts_of
from moonseg_jax.errors import UserError
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refine import Refined, Refiner, load_refiner
from moonseg_jax.shipped import shipped
from moonseg_jax.weights import POLICY, load_model_config

SHIPPED_KNOWS = "the shipped refiner knows the embedded coloured shapes only: name your own with --checkpoint"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberWeights:
    """Where one refiner and the policy with its vision encoder lie."""

    refiner: Path
    policy: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """What the masks of an ensemble depend on, besides its weights."""

    starts: int
    """Starts of every refiner; the first is the annotated outline itself."""
    jitter: float
    """Of the other starts, see `starts_of`."""
    iterations: int | None
    """Calls of the refinement head; None takes each model's."""
    seed: int
    """Of the starts."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if self.starts < 1:
            raise UserError(f"--starts must be at least 1, got {self.starts}")
        if not 0.0 <= self.jitter <= 0.5:
            raise UserError(f"--jitter is a share of the object's size between 0 and .5, got {self.jitter}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")


class Ensemble:
    """Refiners that are loaded once; `measure` asks them all."""

    def __init__(self, refiners: Sequence[Refiner], settings: EnsembleSettings):
        """Puts refiners together.

        Args:
          refiners: at least one.
          settings: starts of each.

        Raises:
          UserError: one member in all, which has nobody to agree with.
        """
        if len(refiners) * settings.starts < 2:
            raise UserError(
                "one refiner with one start cannot agree with anybody: name several checkpoints or raise --starts"
            )
        self.refiners, self.settings = refiners, settings

    @property
    def members(self) -> int:
        """Masks that are drawn of every instance."""
        return len(self.refiners) * self.settings.starts

    def measure(self, instances: Sequence[Instance]) -> list[Measurement]:
        """What the members say of each instance.

        Raises:
          UserError: a batch of crops does not fit the device's memory.
        """
        members = self.masks_of(instances)
        return [measure_members(one.annotation, masks) for one, masks in zip(instances, members)]

    def masks_of(self, instances: Sequence[Instance]) -> list[list[Refined]]:
        """The masks of all members, a list for each instance: refiner by refiner, start by start."""
        count, jitter, seed = self.settings.starts, self.settings.jitter, self.settings.seed
        images, boxes, coarse = [], [], []
        for one in instances:
            for mask, box in starts_of(one.annotation, count, jitter, (seed, one.scene, one.position)):
                images.append(one.image)
                boxes.append(box)
                coarse.append(mask)
        drawn: list[list[Refined]] = [[] for _ in instances]
        for refiner in self.refiners:
            for number, result in enumerate(refiner.refine(images, boxes, coarse)):
                drawn[number // count].append(result)
        return drawn


def find_members(checkpoints: Sequence[Path], policy: Path | None) -> list[MemberWeights]:
    """Where the weights of each refiner and its encoder lie.

    Args:
      checkpoints: folders with refiner weights, each once; none takes the shipped refiner.
      policy: policy whose encoder feeds those checkpoints that hold no policy; None takes the shipped one.

    Raises:
      UserError: a folder is named twice or holds no weights, or its refiner cannot be that of the shipped policy.
    """
    if not checkpoints:
        return [MemberWeights(refiner=shipped("refiner"), policy=policy or shipped("rl"))]
    if len({folder.resolve() for folder in checkpoints}) < len(checkpoints):
        raise UserError("--checkpoint names a folder twice: the same weights always agree with themselves")
    members = []
    for folder in checkpoints:
        config = load_model_config(folder)
        own = (folder / POLICY).is_dir() or (folder / f"{POLICY}.safetensors").is_file()
        if not own and policy is None:
            ours = load_model_config(shipped("rl"))
            if (config.vision, config.refiner) != (ours.vision, ours.refiner):
                raise UserError(
                    f"{folder} holds a refiner without a policy, and it does not fit the shipped one: name the policy "
                    "it was trained with, --policy DIR"
                )
        members.append(MemberWeights(refiner=folder, policy=folder if own else policy or shipped("rl")))
    return members


def load_ensemble(members: Sequence[MemberWeights], settings: EnsembleSettings, batch: int) -> Ensemble:
    """Loads all refiners; a policy that several share is loaded once.

    Args:
      members: see `find_members`.
      settings: starts and iterations.
      batch: crops per call of the compiled program.

    Raises:
      UserError: weights are missing or do not fit; or there is one member in all.
    """
    loaded: dict[Path, tuple[Policy, Any]] = {}
    refiners = []
    for member in members:
        if member.policy not in loaded:
            loaded[member.policy] = load_policy(member.policy)
        refiners.append(load_refiner(member.refiner, *loaded[member.policy], batch, settings.iterations))
    return Ensemble(refiners, settings)
