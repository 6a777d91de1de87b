"""From what the ensemble said to what is kept: the rule, then the screen of phrases, with a reason for everything."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from moonseg_jax.clean.agreement import Measurement
from moonseg_jax.clean.instances import DroppedPhrase, Instance
from moonseg_jax.clean.log import run_lengths
from moonseg_jax.clean.rule import NO_PHRASE, Rule, fault_of
from moonseg_jax.clean.word_screen import WordScreen

SCREENED = "phrase says a listed word"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What becomes of one instance."""

    instance: Instance
    found: Measurement
    reason: str | None
    """Why it is dropped, see `rule.REASONS`; None for one that is kept."""
    phrases: tuple[str, ...]
    """Those that stay with a kept instance; of a dropped one all that passed the screen."""
    example_ids: tuple[int, ...]
    screened: tuple[DroppedPhrase, ...]
    """Phrases that the word list took from it."""
    words: tuple[str, ...]
    """The listed word of each of those."""

    @property
    def kept(self) -> bool:
        """Whether it is in the cleaned data set."""
        return self.reason is None


def judge_instance(instance: Instance, found: Measurement, rule: Rule, screen: WordScreen) -> Verdict:
    """Applies the rule to a mask and the word list to its phrases."""
    stays, screened, words = [], [], []
    for phrase, example_id in zip(instance.phrases, instance.example_ids):
        word = screen.found_in(phrase)
        if word is None:
            stays.append((phrase, example_id))
        else:
            dropped = DroppedPhrase(image_id=instance.image_id, example_id=example_id, phrase=phrase, reason=SCREENED)
            screened.append(dropped)
            words.append(word)
    return Verdict(
        instance=instance, found=found, reason=fault_of(found, rule) or (None if stays else NO_PHRASE),
        phrases=tuple(phrase for phrase, _ in stays), example_ids=tuple(number for _, number in stays),
        screened=tuple(screened), words=tuple(words),
    )  # fmt: skip


def numbers_of(found: Measurement) -> dict[str, Any]:
    """What was measured of a mask, as JSON has it."""
    return {
        "agreement": found.agreement, "least_agreement": found.least_agreement, "stay": found.stay,
        "score": found.score, "phrase_iou": found.phrase_iou, "unrefined": list(found.unrefined),
    }  # fmt: skip


def as_data(verdict: Verdict) -> dict[str, Any]:
    """A line of kept.jsonl or dropped.jsonl: which instance, why, the numbers, both masks."""
    one = verdict.instance
    return {
        "what": "instance", "image_id": one.image_id, "instance": one.example_ids[0], "reason": verdict.reason,
        **numbers_of(verdict.found), "phrases": list(verdict.phrases), "example_ids": list(verdict.example_ids),
        "mask": run_lengths(verdict.found.consensus), "annotation": run_lengths(one.annotation),
    }  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class Counts:
    """How many there were and what became of them; everything that went in comes out somewhere."""

    images: int = 0
    kept_images: int = 0
    instances: int = 0
    kept_instances: int = 0
    phrases: int = 0
    kept_phrases: int = 0
    dropped_instances: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """By reason."""
    dropped_phrases: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """By reason: by themselves, or with their instance."""
    words: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Phrases that each listed word took."""
    unanswered: int = 0
    """Instances that are kept although the policy can say none of their phrases, where it was asked."""

    def add_scene(self, verdicts: list[Verdict], dropped: list[DroppedPhrase], *, asked: bool) -> None:
        """Counts one image.

        Args:
          verdicts: of all its instances.
          dropped: its phrases without an instance.
          asked: whether a policy was asked for the phrases.
        """
        self.images += 1
        self.kept_images += any(verdict.kept for verdict in verdicts)
        self.phrases += len(dropped)
        self.dropped_phrases.update(one.reason for one in dropped)
        for verdict in verdicts:
            self.instances += 1
            self.phrases += len(verdict.instance.phrases)
            self.dropped_phrases.update(one.reason for one in verdict.screened)
            self.words.update(verdict.words)
            if verdict.reason is None:
                self.kept_instances += 1
                self.kept_phrases += len(verdict.phrases)
                self.unanswered += asked and verdict.found.phrase_iou is None
            else:
                self.dropped_instances[verdict.reason] += 1
                if verdict.phrases:
                    self.dropped_phrases[f"with its instance: {verdict.reason}"] += len(verdict.phrases)

    def as_data(self) -> dict[str, Any]:
        """As JSON has it, the most frequent reasons first."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: dict(value.most_common()) if isinstance(value, collections.Counter) else value
            for name, value in fields.items()
        }
