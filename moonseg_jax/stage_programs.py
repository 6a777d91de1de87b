"""The gradient steps of the stages `sft` and `refiner`, from a run's config; those of `rl` are in `rl_programs`."""

from __future__ import annotations

from typing import Any

import jax
import optax

from moonseg_jax.learner.refiner import RefinerStep, make_refiner_step
from moonseg_jax.learner.sft import make_sft_step
from moonseg_jax.learner.trainable import Trainable
from moonseg_jax.model.refiner import RefinementHead
from moonseg_jax.policy import Policy
from moonseg_jax.train_config import RefinerConfig, SftConfig


def sft_program(
    config: SftConfig, policy: Policy, optimizer: optax.GradientTransformation, *, tokens: int | None = None
) -> Any:
    """The supervised gradient step.

    Args:
      config: the run's.
      policy: model and language.
      optimizer: of the step.
      tokens: of every completion, the first so many; None learns all.
    """
    return make_sft_step(
        policy.model, policy.tables, optimizer, tokens=tokens or config.model.paths.max_new_tokens,
        box_weight=config.box_weight, box_distance_weight=config.box_distance_weight,
        path_distance_weight=config.path_distance_weight, heat_weight=config.heat_weight,
        words_weight=config.words_weight, average_decay=config.average_decay, trainable=config.trainable,
        microbatches=config.microbatches,
    )  # fmt: skip


def merging_program(trainable: Trainable) -> Any:
    """Function (trained, frozen) → the policy's parameters without factors; compiled where these have to be added."""
    return jax.jit(trainable.merged) if trainable.lora.rank else trainable.merged


def refiner_program(
    config: RefinerConfig, head: RefinementHead, optimizer: optax.GradientTransformation
) -> RefinerStep:
    """The refiner's gradient step; see `make_refiner_step`."""
    return make_refiner_step(
        head, optimizer, kind=config.mask_loss, best_of_masks=config.best_of_masks,
        boundary_weight=config.boundary_weight, dice_weight=config.dice_weight, iou_weight=config.iou_weight,
        average_decay=config.average_decay,
    )  # fmt: skip
