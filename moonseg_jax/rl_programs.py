"""What a step of reinforcement learning runs on device: a few programs, compiled once each, from the run's config."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from moonseg_jax.learner.injection import Injection, make_injection
from moonseg_jax.learner.policy import make_old_log_probs, make_policy_step
from moonseg_jax.pairs import make_pairs
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.groups import GroupRollout, make_rollout
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.time_split import StepClock
from moonseg_jax.train_config import RlConfig


class SamplingPrograms(NamedTuple):
    """Of those who sample, in the order in which a step runs them."""

    rollout: GroupRollout
    """Samples, draws and scores groups."""
    inject: Injection
    """Puts traced paths beside hopeless groups."""

    def timed(self, clock: StepClock) -> SamplingPrograms:
        """The same, with the seconds of sampling on a clock."""
        return self._replace(rollout=clock.timed("rollout", self.rollout))


class LearningPrograms(NamedTuple):
    """Of those who learn, in the order in which a step runs them."""

    log_probs: Callable[..., Any]
    """Log-probabilities before learning, where ratios are taken against them."""
    update: Callable[..., Any]
    """The gradient step."""
    draw_pairs: Callable[..., Any]
    """Coarse-to-ground-truth pairs of what was sampled."""

    def timed(self, clock: StepClock) -> LearningPrograms:
        """The same, with the seconds of learning on a clock."""
        return self._replace(
            log_probs=clock.timed("learn", self.log_probs), update=clock.timed("learn", self.update)
        )  # fmt: skip


def rl_sampling(config: RlConfig) -> Sampling:
    """How a run samples."""
    return Sampling(
        group=config.group, temperature=config.temperature, slots=config.slots, record_experts=config.replay_experts
    )


def sampling_programs(config: RlConfig, policy: Policy, mesh: Mesh | None) -> SamplingPrograms:
    """The sampler's programs of a run; each compiles at its first call.

    Args:
      config: the run's.
      policy: model and language.
      mesh: over which images are split; None runs on one device.
    """
    return SamplingPrograms(
        rollout=make_rollout(
            policy, rl_sampling(config), reward=config.reward_spec, seed=config.seed, mesh=mesh,
            token_credit=config.credit == "token",
        ),
        inject=make_injection(policy, below=config.inject_below, reward=config.reward_spec, mesh=mesh),
    )  # fmt: skip


def learning_programs(config: RlConfig, policy: Policy, optimizer: optax.GradientTransformation) -> LearningPrograms:
    """The learner's programs of a run; each compiles at its first call, for the mesh in use.

    Args:
      config: the run's.
      policy: model and language.
      optimizer: of the gradient step.
    """
    return LearningPrograms(
        log_probs=make_old_log_probs(
            policy.model, policy.grammar, temperature=config.temperature, microbatches=config.microbatches
        ),
        update=make_policy_step(
            policy.model, policy.grammar, policy.tables, optimizer, loss=config.loss, temperature=config.temperature,
            supervised_weight=config.supervised_weight, average_decay=config.average_decay,
            microbatches=config.microbatches, trainable=config.trainable,
        ),
        draw_pairs=jax.jit(functools.partial(make_pairs, side=config.model.vision.crop)),
    )  # fmt: skip
