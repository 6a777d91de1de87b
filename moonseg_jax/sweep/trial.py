"""What a sweep is: trials with their arms, and what makes them comparable. A config file's `sweep()` returns one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal

from moonseg_jax.config import ConfigError
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

FIGURES = ("miou", "ciou", "biou_2px", "tokens", "sampled_miou")
"""Held-out figures of a policy's trial; all but the last are of greedy paths before refinement."""
REFINED_FIGURES = ("miou", "ciou", "biou_2px", "identity_iou", "worse")
"""Held-out figures of a refiner's trial: of the policy's greedy paths after refinement; the mean IoU that is left where
the ground truth is refined; the share of masks that refinement made worse (`refiner_evaluation.WORSE_BY`)."""
FEWER_IS_BETTER = ("tokens", "worse")
Stage = Literal["sft", "rl", "refiner"]
Equal = Literal["steps", "seconds"]
_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a sweep: an arm (what is being tried) under one seed."""

    arm: str
    """Label of the setting that is tried; trials of one arm differ in their seed alone."""
    config: SftConfig | RlConfig | RefinerConfig
    """The whole run, its seed included; among RL trials an `SftConfig` makes a supervised control."""

    def __post_init__(self) -> None:
        """Refuses labels that cannot name a folder.

        Raises:
          ConfigError: names the label and what it may hold.
        """
        if not _ARM.fullmatch(self.arm):
            raise ConfigError(f"arm {self.arm!r}: use letters, digits, _ and . only, a letter or digit first")

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm}-seed{self.config.seed}"

    @property
    def stage(self) -> Stage:
        """Which loop runs it."""
        if isinstance(self.config, RefinerConfig):
            return "refiner"
        return "rl" if isinstance(self.config, RlConfig) else "sft"

    @property
    def budget(self) -> dict[str, int]:
        """What a trial may spend, as counts: equal for all trials compared at equal steps, and for all of one arm."""
        config = self.config
        if isinstance(config, RefinerConfig):
            # All pairs of a file are as many as it holds, whichever it is: written as 0.
            return {
                "steps": config.steps, "pairs_per_batch": config.images_per_batch, "pairs": config.pair_count or 0,
            }  # fmt: skip
        return {
            "steps": config.steps, "images_per_batch": config.images_per_batch,
            "phrases_per_image": config.phrases_per_image,
            "samples_per_phrase": config.group if isinstance(config, RlConfig) else 0,
            "updates_per_rollout": config.updates_per_rollout if isinstance(config, RlConfig) else 1,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Trials, and how they are judged."""

    trials: tuple[Trial, ...]
    baseline: str
    """Arm that all others are compared with, seed by seed."""
    judged_by: str = "miou"
    """The figure that decides, one of `figures`."""
    equal: Equal = "steps"
    """What all trials have in common: the counts of `Trial.budget`, or seconds of training as they were measured."""
    time_tolerance: float = 0.1
    """With `seconds`: by what share an arm's mean training time may differ from the baseline's."""
    eval_phrases: int = 2
    """Phrases judged per scene of the whole held-out split, the first ones; the same for every arm."""

    def __post_init__(self) -> None:
        """Refuses sweeps that cannot be run or compared.

        Raises:
          ConfigError: no trials, one twice, policies and refiners together, an unknown baseline or figure, or a number
            out of range.
        """
        if not self.trials:
            raise ConfigError("sweep: there are no trials")
        names = [trial.name for trial in self.trials]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"sweep: {', '.join(twice)} stands there twice; give arms of their own, or other seeds")
        if self.baseline not in self.arms:
            raise ConfigError(f"sweep: baseline {self.baseline!r} is no arm; there are {', '.join(self.arms)}")
        if len({figures_of(trial.stage) for trial in self.trials}) > 1:
            raise ConfigError("sweep: some trials train policies, others refiners; give them sweeps of their own")
        if self.judged_by not in self.figures:
            raise ConfigError(f"sweep: judged_by is {self.judged_by!r}; it must be one of {', '.join(self.figures)}")
        if not 0 < self.time_tolerance < 1:
            raise ConfigError(f"sweep: time_tolerance is {self.time_tolerance}; it is a share between 0 and 1")
        if self.eval_phrases < 1:
            raise ConfigError(f"sweep: eval_phrases is {self.eval_phrases}; it must be at least 1")

    @property
    def figures(self) -> tuple[str, ...]:
        """What its trials are measured by."""
        return figures_of(self.trials[0].stage)

    @property
    def arms(self) -> tuple[str, ...]:
        """Labels, in the order of the trials."""
        return tuple(dict.fromkeys(trial.arm for trial in self.trials))

    def of_arms(self, arms: Sequence[str]) -> Sweep:
        """The same sweep with only these arms and the baseline; no arms for all.

        Raises:
          ConfigError: an arm that does not exist.
        """
        unknown = [arm for arm in arms if arm not in self.arms]
        if unknown:
            raise ConfigError(f"no arm {', '.join(unknown)} in this sweep; there are {', '.join(self.arms)}")
        wanted = {*arms, self.baseline} if arms else set(self.arms)
        return dataclasses.replace(self, trials=tuple(trial for trial in self.trials if trial.arm in wanted))

    def judgement(self) -> dict[str, Any]:
        """How it is judged, as JSON has it: what `DIR/sweep.json` says."""
        settings = ("baseline", "judged_by", "equal", "time_tolerance", "eval_phrases")
        return {name: getattr(self, name) for name in settings}


def figures_of(stage: str) -> tuple[str, ...]:
    """The figures that trials of a stage end in."""
    return REFINED_FIGURES if stage == "refiner" else FIGURES
