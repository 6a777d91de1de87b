"""Settings of the rollout engine, and the sizes that follow from them."""

from __future__ import annotations

import dataclasses
import math

from moonseg_jax.config import ConfigError

RESIDENT_SEATS = 3
"""Seats at resident prefixes per slot. The slowest of a group keeps its prefix resident, while others of its group
are long replaced; at lengths with p50/p90/p99 = 60/140/260 slots stop waiting for prefixes at 2.5."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are sampled; static, one compiled program each."""

    group: int = 1
    """G: samples per prompt."""
    temperature: float = 1.0
    """T > 0, or 0 for the best tokens and bins. There is no top-k and no top-p: log-probabilities stay exact."""
    slots: int | None = None
    """Sequences decoded side by side on a device; None gives every sample of a batch its own slot."""
    images_per_prefill: int = 1
    """Images encoded together when prefixes are refilled; with a slot for every sample, all of them."""
    record_experts: bool = True
    """Whether to keep the experts of every token, for replay in the learner."""

    def __post_init__(self) -> None:
        """Refuses numbers that sample nothing.

        Raises:
          ConfigError: names the setting.
        """
        for name, least in (("group", 1), ("slots", 1), ("images_per_prefill", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: it must be at least {least}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}: it must be 0 (greedy) or positive")

    def sizes(self, images: int, phrases: int) -> EngineSizes:
        """Sizes of the engine for the images of one device, with `phrases` each."""
        per_image = phrases * self.group
        samples = images * per_image
        slots = min(self.slots or samples, samples)
        if slots == samples:
            return EngineSizes(slots=slots, residents=images, images_per_prefill=images)
        per_prefill = max(n for n in range(1, min(self.images_per_prefill, images) + 1) if images % n == 0)
        residents = math.ceil(RESIDENT_SEATS * slots / per_image) + per_prefill
        return EngineSizes(slots=slots, residents=min(residents, images), images_per_prefill=per_prefill)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSizes:
    """What fixes the shapes of the engine's state on one device."""

    slots: int
    residents: int
    """Images whose prefix and prompts are held at a time."""
    images_per_prefill: int
    """A divisor of the images."""
