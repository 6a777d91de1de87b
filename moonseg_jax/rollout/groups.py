"""One compiled program from prompts to scored groups of rollouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from moonseg_jax.axes import ENGINES
from moonseg_jax.engines import over_engines, sum_over_engines
from moonseg_jax.errors import UserError
from moonseg_jax.metrics import by_object_size
from moonseg_jax.partition import gathered_parameters, whole
from moonseg_jax.policy import Policy
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.score import NEAR_BOUNDARY, Drawn, read_paths, score
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.rollout.token_credit import with_token_reward
from moonseg_jax.types import FINISH_BUDGET, FINISH_INVALID, PromptBatch, Rollouts, Routing, Scored, SumAndCount

Rolled = tuple[Rollouts, Scored, Drawn, dict[str, SumAndCount]]
GroupRollout = Callable[[Any, PromptBatch, Int[Array, "I K"], Int[Array, ""] | int], Rolled]


def make_rollout(
    policy: Policy,
    sampling: Sampling,
    *,
    reward: RewardSpec,
    seed: int,
    mesh: Mesh | None = None,
    token_credit: bool = False,
) -> GroupRollout:
    """Compiles sampling, drawing and scoring; on a mesh, every device runs the engine on its own images.

    Devices do not wait for each other inside: only the figures are summed, at the end. Nothing goes to the host.

    Args:
      policy: the model and its language.
      sampling: group, temperature, slots per device.
      reward: what samples are paid for.
      seed: of the run; noise also depends on the step, the prompt and the sample index.
      mesh: over which images are split; None runs on one device.
      token_credit: whether rewards are placed on tokens too (`Scored.token_reward`).

    Returns:
      Function (parameters, batch, tokens of the batch's traced targets, step) → rollouts, scores, what they draw,
      and figures as sums and counts over the batch's valid prompts. The step is the policy's version and where the
      reward's schedules stand.

    Raises:
      UserError: the budget is too small for any path.
    """
    require_budget(policy)

    def rollout(params: Any, batch: PromptBatch, target_lengths: Int[Array, "I K"], step: Int[Array, ""]) -> Rolled:
        params, batch, target_lengths = (
            gathered_parameters(params, policy.model.dtype),
            whole(batch),
            whole(target_lengths),
        )
        keys = sample_keys(jax.random.key(seed), step, batch.example_ids, sampling.group)
        rollouts, use = sample(policy.model, policy.grammar, params, batch, keys, sampling)
        drawn, scored = draw_and_score(policy, batch, target_lengths, rollouts, reward, step, token_credit)
        truth = batch.ground_truth.reshape(-1, *batch.ground_truth.shape[2:])
        valid = jnp.repeat(batch.valid.reshape(-1), sampling.group)
        of_size = {name: jnp.repeat(rows, sampling.group) for name, rows in by_object_size(truth).items()}
        sums = {**_figures(rollouts, scored, reward, valid, of_size), "useful_slots": use}
        return rollouts, scored, drawn, sum_over_engines(sums)

    specs = P(), P(ENGINES), P(ENGINES), P()
    return jax.jit(over_engines(rollout, mesh, specs, _placement(sampling)))


def draw_and_score(
    policy: Policy,
    batch: PromptBatch,
    target_lengths: Int[Array, "I K"],
    rollouts: Rollouts,
    reward: RewardSpec,
    step: Int[Array, ""] | int,
    token_credit: bool,
) -> tuple[Drawn, Scored]:
    """What a batch's rollouts draw, and what that is worth; arguments as in `make_rollout` and of its result."""
    drawn = read_paths(policy.config, policy.tables, rollouts)
    truth, references = batch.ground_truth.reshape(-1, *batch.ground_truth.shape[2:]), target_lengths.reshape(-1)
    scored = score(rollouts, drawn, truth, references, reward, step)
    if token_credit:
        scored = with_token_reward(scored, rollouts, drawn, policy.tables, truth, references, reward, step)
    return drawn, scored


def require_budget(policy: Policy) -> None:
    """Refuses a budget in which no path fits.

    Raises:
      UserError: names the setting and the least that works.
    """
    grammar, paths = policy.grammar, policy.config.paths
    least = int(grammar.tokens_to_end[grammar.next_state[grammar.initial].max()]) + 1
    if paths.max_new_tokens < least:
        raise UserError(
            f"paths.max_new_tokens is {paths.max_new_tokens}: the shortest path with its box and end takes {least}"
        )


def _figures(
    rollouts: Rollouts, scored: Scored, reward: RewardSpec, valid: Array, of_size: dict[str, Array]
) -> dict[str, SumAndCount]:
    def over(rows: Array, values: Array) -> SumAndCount:
        return jnp.sum(jnp.where(rows, values.astype(jnp.float32), 0.0)), jnp.sum(rows).astype(jnp.float32)

    def over_valid(values: Array) -> SumAndCount:
        return over(valid, values)

    return {
        "reward": over_valid(scored.reward),
        "sampled_iou": over_valid(scored.iou),
        "boundary_iou": over_valid(scored.terms[NEAR_BOUNDARY.label]),
        "tokens": over_valid(rollouts.lengths),
        "out_of_budget": over_valid(rollouts.finish == FINISH_BUDGET),
        "invalid": over_valid(rollouts.finish == FINISH_INVALID),
        **{f"iou_{name}": over(valid & rows, scored.iou) for name, rows in of_size.items()},
        **{f"term_{one.label}": over_valid(scored.terms[one.label]) for one in reward.terms},
    }


def placement_of_rollouts(with_experts: bool, with_source: bool = False) -> Rollouts:
    """Partition specs of rollouts: rows lie with their images."""
    rows, layered = P(ENGINES), P(None, ENGINES)
    whole: dict[str, Any] = dict.fromkeys(("image", "prompt", "completion"), layered)
    per_row: dict[str, Any] = {field.name: rows for field in dataclasses.fields(Rollouts)}  # type: ignore[arg-type]
    per_row["source"] = rows if with_source else None
    per_row["experts"] = Routing(**whole) if with_experts else None
    return Rollouts(**per_row)


def _placement(sampling: Sampling) -> Any:
    """Where the outputs lie: rows with their images, figures everywhere."""
    rows, everywhere = P(ENGINES), P()
    return placement_of_rollouts(sampling.record_experts), rows, rows, everywhere
