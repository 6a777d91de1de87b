"""Scoring a file of predictions against ground truths: every sample counts, answered or not."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from rich.progress import track

from moonseg_jax.errors import UserError
from moonseg_jax.mask_scoring.predictions import Predictions
from moonseg_jax.mask_scoring.truths import Truth, Truths
from moonseg_jax.scoring.figures import bootstrap, by_size, figures, mean_over_classes, status_counts
from moonseg_jax.scoring.sample_score import SampleScore, score_sample

ANSWERED, MISSING = "answered", "missing"
"""Statuses of a sample; a missing prediction counts as an empty mask."""


def score_predictions(
    file: Path, truths: Truths, *, seed: int = 0, samples: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Figures of a file of masks.

    Args:
      file: JSON lines, see `Predictions`.
      truths: all samples of a split; one line may answer several with equal keys.
      seed: of the intervals.
      samples: file for a line per sample, in the order of the truths; None writes none.
      progress: show a bar on standard error.

    Returns:
      `figures`, 95 % `intervals` and figures `by_size`; `class_miou` and `classes` where samples have categories;
      `statuses` (answered, missing, empty), `lines` of the file, `left_out`.

    Raises:
      UserError: a line is broken or answers nothing; there is no sample.
    """
    if not truths.samples:
        raise UserError(f"{truths.described}: there is no sample to score")
    predictions = Predictions(file)
    try:
        predictions.refuse_unknown({key for truth in truths.samples for key in truth.keys})
        bar = track(truths.samples, "score", disable=not (progress and sys.stderr.isatty()))
        scores = [_score(predictions, truth) for truth in bar]
    finally:
        predictions.close()
    if samples is not None:
        samples.write_text("".join(_line(score, truth) for score, truth in zip(scores, truths.samples, strict=True)))
    result: dict[str, Any] = {
        "scored": truths.described, "figures": figures(scores), "intervals": bootstrap(scores, seed=seed),
        "by_size": by_size(scores), "statuses": {ANSWERED: 0, MISSING: 0, **status_counts(scores)},
        "lines": len(predictions), "left_out": len(truths.left_out),
    }  # fmt: skip
    categories = [truth.category for truth in truths.samples if truth.category is not None]
    if len(categories) == len(scores):
        result |= {"class_miou": mean_over_classes(scores, categories), "classes": len(set(categories))}
    return result


def _score(predictions: Predictions, truth: Truth) -> SampleScore:
    true = truth.mask()
    drawn = predictions.mask(truth.keys, truth.height, truth.width)
    if drawn is None:
        return score_sample(true & False, true, id=truth.id, status=MISSING)
    return score_sample(drawn, true, id=truth.id, status=ANSWERED)


def _line(score: SampleScore, truth: Truth) -> str:
    line = {"id": truth.id, "phrase": truth.phrase, "iou": score.iou, "f": score.f, **dataclasses.asdict(score)}
    return json.dumps(line, ensure_ascii=False) + "\n"
