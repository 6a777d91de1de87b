"""Which masks are kept: thresholds on what the ensemble says, and the reason where one is not met."""

from __future__ import annotations

import dataclasses

from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.errors import UserError

UNREFINED = "a member could not refine"
EMPTY = "the members draw nothing together"
DISAGREE = "the members disagree"
LEFT = "the mask left the annotated object"
OTHER = "the policy draws another object for the phrase"
NO_PHRASE = "no phrase is left after screening"

REASONS = (UNREFINED, EMPTY, DISAGREE, LEFT, OTHER, NO_PHRASE)
"""All reasons to drop an instance, in the order in which they are looked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Least values that a kept mask has."""

    min_agreement: float
    """Mean IoU over pairs of members."""
    min_stay: float
    """IoU of consensus and annotation, the holes of both filled."""
    min_phrase_iou: float
    """IoU of consensus and the policy's own answer; counts only where a policy was asked."""

    def __post_init__(self) -> None:
        """Refuses thresholds outside of 0 to 1."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise UserError(f"--{field.name.replace('_', '-')} is an IoU between 0 and 1, got {value}")


def fault_of(found: Measurement, rule: Rule) -> str | None:
    """The first reason to drop a mask; None for one that is kept. A value that equals its threshold is kept."""
    if found.unrefined:
        return UNREFINED
    if not found.consensus.any():
        return EMPTY
    if found.agreement < rule.min_agreement:
        return DISAGREE
    if found.stay < rule.min_stay:
        return LEFT
    if found.phrase_iou is not None and found.phrase_iou < rule.min_phrase_iou:
        return OTHER
    return None
