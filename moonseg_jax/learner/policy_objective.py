"""A policy loss config applied to arrays: rewards to advantages, lengths to learned tokens, both to a loss."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import ConfigError
from moonseg_jax.learner.advantages import group_advantages, injected_advantages
from moonseg_jax.learner.overlong import soft_overlong_punishment, within_budget
from moonseg_jax.learner.policy_loss import PolicyLoss, policy_loss
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.stage_credit import returns_to_go, stage_advantages

BUFFER_SHARE = 5
"""By default the last 1/5 of the token budget is overlong: DAPO's 4,096 of 20,480 tokens (Yu et al. 2025, §4.1)."""


def advantages_under(
    config: PolicyLossConfig,
    reward: Float[Array, "Q G"],
    lengths: Int[Array, "Q G"],
    counted: Bool[Array, "Q G"],
    max_tokens: int,
    injected: Bool[Array, "Q G"] | None = None,
    compared: Bool[Array, "Q G"] | None = None,
) -> Float[Array, "Q G"]:
    """Advantages of a whole batch, overlong completions punished first.

    Args:
      config: what to do.
      reward: shaped reward of G samples for each of Q prompts.
      lengths: tokens per completion.
      counted: False for samples of padding rows and of flat groups.
      max_tokens: the token budget.
      injected: completions given from outside, at most one per prompt; None where there are none.
      compared: samples that injected ones are compared with, those of flat groups included.

    Raises:
      ConfigError: see `overlong_buffer`.
    """
    reward = _with_punishment(config, reward, lengths, max_tokens)
    own = group_advantages(reward, counted, baseline=config.baseline, scale=config.scale)
    if injected is None or compared is None:
        return own
    given = injected_advantages(reward, counted, compared, injected, baseline=config.baseline, scale=config.scale)
    return jnp.where(injected, given, own)


def token_advantages_under(
    config: PolicyLossConfig,
    token_reward: Float[Array, "Q G T"],
    stage: Int[Array, "Q G T"],
    lengths: Int[Array, "Q G"],
    counted: Bool[Array, "Q G"],
    max_tokens: int,
) -> Float[Array, "Q G T"]:
    """Advantages of every token of a whole batch, overlong completions punished at their end.

    Args:
      config: what to do; nothing is scaled.
      token_reward: shaped reward earned at each token of G samples for each of Q prompts.
      stage: subpaths closed before each token.
      lengths: tokens per completion.
      counted: False for samples of padding rows and of flat groups, and for injected ones.
      max_tokens: the token budget.

    Raises:
      ConfigError: see `overlong_buffer`.
      ValueError: a scale is set; and see `stage_advantages`.
    """
    if config.scale != "none":
        raise ValueError(f"scale is {config.scale}: advantages of tokens have none")
    returns = _with_punishment(config, returns_to_go(token_reward), lengths[..., None], max_tokens)
    return stage_advantages(returns, stage, lengths, counted, baseline=config.baseline)


def _with_punishment(
    config: PolicyLossConfig, reward: Float[Array, "*any"], lengths: Int[Array, "*any"], max_tokens: int
) -> Float[Array, "*any"]:
    if not config.overlong_weight:
        return reward
    buffer = overlong_buffer(config, max_tokens)
    return reward + config.overlong_weight * soft_overlong_punishment(lengths, max_tokens, buffer)


def overlong_buffer(config: PolicyLossConfig, max_tokens: int) -> int:
    """Tokens at the end of a budget over which the punishment of long completions grows.

    Raises:
      ConfigError: the buffer is longer than the budget.
    """
    buffer = config.overlong_buffer or max(max_tokens // BUFFER_SHARE, 1)
    if buffer > max_tokens:
        raise ConfigError(
            f"overlong_buffer is {buffer}, longer than the budget of {max_tokens} tokens (paths.max_new_tokens): "
            "give at most that, or None for a fifth of it"
        )
    return buffer


def learned_under(
    config: PolicyLossConfig,
    lengths: Int[Array, " N"],
    counted: Bool[Array, " N"],
    max_tokens: int,
    budgets: Int[Array, " N"] | None = None,
) -> Bool[Array, "N T"]:
    """Which tokens of completions padded to `max_tokens` are learned.

    Args:
      config: whether truncated completions are.
      lengths: tokens per completion.
      counted: False for samples of padding rows and of flat groups.
      max_tokens: the token budget, T.
      budgets: of each sample, where they differ; None means T.
    """
    if config.mask_truncated:
        counted = counted & within_budget(lengths, max_tokens if budgets is None else budgets)
    return counted[:, None] & (jnp.arange(max_tokens) < lengths[:, None])


def loss_under(
    config: PolicyLossConfig,
    log_probs: Float[Array, "N T"],
    old_log_probs: Float[Array, "N T"],
    advantage: Float[Array, " N"] | Float[Array, "N T"],
    learned: Bool[Array, "N T"],
    *,
    max_tokens: int,
    behaviour_log_probs: Float[Array, "N T"] | None = None,
    reference_log_probs: Float[Array, "N T"] | None = None,
    entropy: Float[Array, "N T"] | None = None,
    sampled: Bool[Array, " N"] | None = None,
) -> PolicyLoss:
    """`policy_loss` of a batch or micro-batch with the settings of a config; see there for the arrays.

    Args:
      config: the settings.
      log_probs: see `policy_loss`; so are the other arrays.
      old_log_probs: see there.
      advantage: see there.
      learned: see there.
      max_tokens: the token budget; the fixed length where the config leaves it open.
      behaviour_log_probs: see there.
      reference_log_probs: see there.
      entropy: see there.
      sampled: see there.
    """
    return policy_loss(
        log_probs, old_log_probs, advantage, learned, ratio=config.ratio, clip_low=config.clip_low,
        clip_high=config.clip_high, aggregation=config.aggregation, fixed_length=config.fixed_length or max_tokens,
        behaviour_log_probs=behaviour_log_probs, correction_cap=config.correction_cap,
        reference_log_probs=reference_log_probs, kl_estimator=config.kl_estimator, kl_weight=config.kl_weight,
        entropy=entropy, entropy_weight=config.entropy_weight,
        sampled=sampled,
    )  # fmt: skip
