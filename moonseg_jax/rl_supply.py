"""The supply of a run of reinforcement learning, put together from its config and its roles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from moonseg_jax.axes import ENGINES
from moonseg_jax.errors import UserError
from moonseg_jax.loop import Loop, Sitting
from moonseg_jax.placement.ahead import Sampler, SamplerWithinHosts, SamplingAhead
from moonseg_jax.placement.between_hosts import BetweenHosts
from moonseg_jax.placement.experience import Experience, Sample, experience_shapes, lying_on, make_sample
from moonseg_jax.placement.other_hosts import SamplersOnOtherHosts, sample_for_others, tell_where_to_begin
from moonseg_jax.placement.roles import Roles
from moonseg_jax.placement.supply import PolicyOf, Supply, TakingTurns
from moonseg_jax.placement.weights import as_they_arrive
from moonseg_jax.placement.within_hosts import WithinHosts
from moonseg_jax.policy import Policy
from moonseg_jax.rl_programs import sampling_programs
from moonseg_jax.sharding import put_batch, row_shards
from moonseg_jax.time_split import StepClock
from moonseg_jax.train_config import RlConfig


def open_supply(
    config: RlConfig,
    roles: Roles,
    policy: Policy,
    policy_of: PolicyOf,
    loop: Loop,
    loader: Any,
    *,
    resume: bool,
) -> Supply:
    """What a process that learns takes its batches from; after `Loop.restore`.

    Args:
      config: the run's.
      roles: who learns, who samples.
      policy: model and language.
      policy_of: state → parameters.
      loop: of the run.
      loader: iterator over this process's batches.
      resume: whether the loop was restored.
    """
    read = loop.clock.timed("data", lambda: next(loader))
    sample = _sample(config, policy, roles.sampler, loop.clock)
    if not config.placement.overlaps:
        placed = loop.clock.timed("data", lambda: put_batch(roles.learner, next(loader)))
        if resume and loop.version_in_flight is not None:
            _drop(config, loop)
        return TakingTurns(loop, loader, placed, sample, policy_of)
    shapes, dtype = config.trainable.shapes(policy.shapes()), config.placement.dtype
    sampler: Sampler
    if roles.apart:
        exchange = BetweenHosts(roles, shapes, dtype, config.images_per_batch)
        sampler = SamplersOnOtherHosts(exchange, _shapes_of(config, policy, len(roles.groups)))
    else:
        sampler = SamplerWithinHosts(WithinHosts(roles.learner, roles.sampler, shapes, dtype), roles.sampler, sample)
    supply = SamplingAhead(loop, loader, read, sampler, policy_of, roles.learner, len(roles.learners))
    if resume:
        of_all = _shapes_of(config, policy, 1)
        supply.resume(lambda batch: lying_on(roles.learner, of_all(batch)))
    if roles.apart:
        tell_where_to_begin(loop.first_step, loader.get_state(), supply.in_flight is not None)
    return supply


def sample_only(config: RlConfig, roles: Roles, policy: Policy, loader: Any, sitting: Sitting) -> None:
    """What a process does that only samples.

    Args:
      config: the run's.
      roles: who learns, who samples.
      policy: model and language.
      loader: iterator over this process's batches.
      sitting: how this sitting is conducted.
    """
    shapes = config.trainable.shapes(policy.shapes())
    exchange = BetweenHosts(roles, shapes, config.placement.dtype, config.images_per_batch)
    sample_for_others(
        roles, exchange, _sample(config, policy, roles.sampler), _shapes_of(config, policy, len(roles.groups)),
        loader, lambda: next(loader), steps=config.steps, grace=sitting.grace,
    )  # fmt: skip


def images_per_engine(config: RlConfig, roles: Roles) -> int:
    """How many images of a batch each rollout engine takes; micro-batches take equal parts of every learner's.

    Raises:
      UserError: micro-batches do not divide them.
    """
    shares = row_shards(roles.learner)
    images = config.images_per_batch // shares
    if images % config.microbatches:
        raise UserError(
            f"microbatches is {config.microbatches}, which does not divide the {images} images of each of the "
            f"{shares} shares of the mesh (images_per_batch is {config.images_per_batch}): change either"
        )
    engines = len(roles.groups) * math.prod(roles.sampler.shape[name] for name in ENGINES)
    return config.images_per_batch // engines or 1


def _drop(config: RlConfig, loop: Loop) -> None:
    """Says and counts that samples in flight, saved by a run that sampled ahead, are not learned from."""
    samples = config.images_per_batch * config.phrases_per_image * config.group
    loop.note(
        f"{samples} samples in flight were dropped: they are of policy version {loop.version_in_flight}, and step "
        f"{loop.first_step} learns from its own"
    )
    loop.record({"dropped_rollouts": (np.float32(samples), np.float32(1.0))})


def _sample(config: RlConfig, policy: Policy, mesh: Mesh | None, clock: StepClock | None = None) -> Sample:
    programs = sampling_programs(config, policy, mesh)
    return make_sample(programs if clock is None else programs.timed(clock), injects=config.inject_below > 0)


def _shapes_of(config: RlConfig, policy: Policy, groups: int) -> Callable[[Any], Experience]:
    """Function batch → shapes of the experience of one of so many groups; worked out once."""
    found: list[Experience] = []

    def shapes_of(batch: Any) -> Experience:
        if not found:
            params = as_they_arrive(config.trainable.shapes(policy.shapes()), config.placement.dtype)
            images = config.images_per_batch // groups
            found.append(experience_shapes(_sample(config, policy, None), params, batch, images))
        return found[0]

    return shapes_of
