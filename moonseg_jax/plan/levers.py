"""What makes a step smaller: the settings that trade memory for time, in the order in which they cost least."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from moonseg_jax.learner.trainable import LoraConfig
from moonseg_jax.plan.programs import StageConfig
from moonseg_jax.train_config import PolicyConfig, RefinerConfig, RlConfig

MOST_MICROBATCHES = 64
RANK = 32
"""Of the factors that are tried."""


def levers(config: StageConfig, shares: int) -> Iterator[tuple[str, StageConfig]]:
    """The config with one more lever pulled at a time, each on top of those before it.

    Args:
      config: to start from.
      shares: that the mesh splits a batch's images into; micro-batches take equal parts of each.

    Yields:
      What was changed, as settings of the command line, and the config.
    """
    for change in (_remat, *[_microbatches(shares)] * 6, *[_slots] * 4, _moments, _freeze, _factors, _recompute):
        changed = change(config)
        if changed is not None:
            named, config = changed
            yield named, config


def _remat(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, PolicyConfig) or config.remat == "blocks":
        return None
    return "--remat blocks", dataclasses.replace(config, remat="blocks")


def _microbatches(shares: int) -> Callable[[StageConfig], tuple[str, StageConfig] | None]:
    def twice(config: StageConfig) -> tuple[str, StageConfig] | None:
        if not isinstance(config, PolicyConfig):
            return None
        more = config.microbatches * 2
        if config.images_per_batch // shares % more or more > MOST_MICROBATCHES:
            return None
        return f"--microbatches {more}", dataclasses.replace(config, microbatches=more)

    return twice


def _slots(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, RlConfig) or config.slots is None or config.slots < 2:
        return None
    return f"--slots {config.slots // 2}", dataclasses.replace(config, slots=config.slots // 2)


def _moments(config: StageConfig) -> tuple[str, StageConfig] | None:
    if config.optimizer.state_dtype == "bfloat16":
        return None
    optimizer = dataclasses.replace(config.optimizer, state_dtype="bfloat16")
    return "--optimizer.state-dtype bfloat16", dataclasses.replace(config, optimizer=optimizer)


def _freeze(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, PolicyConfig) or config.freeze or config.lora.rank:
        return None
    return "--freeze vision", dataclasses.replace(config, freeze=("vision",))


def _factors(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, PolicyConfig) or config.lora.rank:
        return None
    named = f"--lora.rank {RANK} --lora.base-dtype bfloat16 (without --freeze)"
    return named, dataclasses.replace(config, freeze=(), lora=LoraConfig(rank=RANK, base_dtype="bfloat16"))


def _recompute(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, RefinerConfig) or config.images_per_batch % 2:
        return None
    half = config.images_per_batch // 2
    return f"--images-per-batch {half}", dataclasses.replace(config, images_per_batch=half)
