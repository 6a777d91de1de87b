"""Settings of the policy loss, and the named recipes of the literature."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, get_args

from moonseg_jax.config import ConfigError
from moonseg_jax.learner.advantages import Baseline, Scale
from moonseg_jax.learner.policy_loss import KlEstimator, Ratio
from moonseg_jax.learner.token_sums import Aggregation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyLossConfig:
    """How rewards become advantages, and advantages a loss. The defaults are the preset `rloo`."""

    baseline: Baseline = "leave-one-out"
    """What a reward is compared with."""
    scale: Scale = "none"
    """What the difference is divided by."""
    ratio: Ratio = "token"
    """Level of the likelihood ratio; none: plain log-probabilities, for one gradient step per batch of rollouts."""
    clip_low: float | None = 0.2
    clip_high: float | None = 0.2
    """Ratios are clipped to [1 - clip_low, 1 + clip_high]; None leaves a side open."""
    aggregation: Aggregation = "fixed-length"
    """What the sum over tokens is divided by."""
    fixed_length: int | None = 1
    """The constant of the aggregation fixed-length; 1 sums each completion's tokens, None is the token budget."""
    correction_cap: float | None = None
    """Largest weight of a token sampled by a staler policy (truncated importance sampling); None: no correction."""
    kl_weight: float = 0.0
    """Weight of the KL divergence to the reference policy, inside the aggregation."""
    kl_estimator: KlEstimator = "k3"
    entropy_weight: float = 0.0
    """Weight of the entropy bonus, inside the aggregation."""
    overlong_weight: float = 0.0
    """Weight of the soft punishment of long completions, as part of the reward."""
    overlong_buffer: int | None = None
    """Tokens at the end of the budget over which the punishment grows; None: a fifth of the budget."""
    mask_truncated: bool = False
    """Leave completions that used up the budget out of the loss."""

    def __post_init__(self) -> None:
        """Refuses settings that cannot work.

        Raises:
          ConfigError: names the setting, what is wrong with it, and what to do.
        """
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), get_args(choices))
        for name in ("kl_weight", "entropy_weight", "overlong_weight"):
            weight = getattr(self, name)
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name} is {weight}: give a finite number that is not negative; 0 switches it off")
        if self.clip_low is not None and not 0 < self.clip_low <= 1:
            raise ConfigError(
                f"clip_low is {self.clip_low}: ratios are positive, so give a number above 0 and at most 1, or None "
                "for no bound"
            )
        if self.clip_high is not None and not 0 < self.clip_high < math.inf:
            raise ConfigError(f"clip_high is {self.clip_high}: give a number above 0, or None for no bound")
        if self.ratio == "none" and (self.clip_low, self.clip_high) != (None, None):
            raise ConfigError("ratio is none, so there is nothing to clip: set clip_low and clip_high to None too")
        if self.correction_cap is not None and not 1 <= self.correction_cap < math.inf:
            raise ConfigError(
                f"correction_cap is {self.correction_cap}: below 1 it would shrink samples of the current policy; give "
                "at least 1 (2 is usual), or None for no correction"
            )
        for name in ("fixed_length", "overlong_buffer"):
            tokens = getattr(self, name)
            if tokens is not None and tokens < 1:
                raise ConfigError(f"{name} is {tokens}: give at least 1 token, or None to take it from the budget")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference policy's log-probabilities: another forward pass."""
        return self.kl_weight != 0.0

    @property
    def needs_old_log_probs(self) -> bool:
        """Whether ratios are against the learner's policy before its updates, not the sampler's: another pass too."""
        return self.correction_cap is not None and self.ratio != "none"


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name} is {value!r}: {hint}It must be one of {', '.join(choices)}")


CHOICES: dict[str, Any] = {
    "baseline": Baseline, "scale": Scale, "ratio": Ratio, "aggregation": Aggregation, "kl_estimator": KlEstimator,
}  # fmt: skip


PRESETS: dict[str, PolicyLossConfig] = {
    "rloo": PolicyLossConfig(),
    "reinforce": PolicyLossConfig(baseline="none", ratio="none", clip_low=None, clip_high=None),
    "grpo": PolicyLossConfig(
        baseline="group-mean", scale="group-std", aggregation="sequence-mean", kl_weight=0.04,
    ),
    "dapo": PolicyLossConfig(
        baseline="group-mean", scale="group-std", clip_high=0.28, aggregation="token-mean", overlong_weight=1.0,
    ),
    "dr_grpo": PolicyLossConfig(baseline="group-mean", fixed_length=None),
    "gspo": PolicyLossConfig(
        baseline="group-mean", scale="group-std", ratio="sequence", clip_low=3e-4, clip_high=4e-4,
        aggregation="sequence-mean",
    ),
}  # fmt: skip
"""Recipes as their papers give them; the default is `rloo`.

- `rloo`: Kool et al. 2019, Ahmadian et al. 2024. Their estimator is for samples of the current policy; ratios and their
  clipping (as in PPO) only matter where a batch of rollouts serves several gradient steps.
- `reinforce`: Williams 1992, without baseline.
- `grpo`: Shao et al. 2024 (DeepSeekMath), eq. 3 and 4; weight of the KL from §4.2, clip range from PPO.
- `dapo`: Yu et al. 2025, eq. 8, 9 and 13. Dynamic sampling is not part of a loss: flat groups are dropped instead.
  Tokens are averaged over the batch, as in the authors' code; the equation averages them per group. The punishment
  reaches -1, a lot beside an IoU.
- `dr_grpo`: Liu et al. 2025, §3; the constant is the token budget.
- `gspo`: Zheng et al. 2025, eq. 5 to 7, clip ranges from §5.1.
"""


def preset(name: str) -> PolicyLossConfig:
    """The named recipe.

    Raises:
      ConfigError: no such preset; names the nearest and lists all.
    """
    _check_choice("preset", name, tuple(PRESETS))
    return PRESETS[name]
