"""A trial's refiner on the whole held-out split: the evidence, and the figures that trials are compared by."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.source import open_split
from moonseg_jax.evaluate import held_out_scenes
from moonseg_jax.policy import load_policy
from moonseg_jax.refine import load_refiner
from moonseg_jax.refiner_evidence.evidence import Evidence
from moonseg_jax.refiner_evidence.sources import gather, known_scenes
from moonseg_jax.run_directory import write_json
from moonseg_jax.storage import place
from moonseg_jax.sweep.evaluation import SAMPLING_SEED
from moonseg_jax.train_config import RefinerConfig

Figures = dict[str, float]


def refiner_figures(weights: Path, config: RefinerConfig, phrases: int, file: Path) -> tuple[Figures, Figures]:
    """Judges a head on every scene of the config's held-out split and writes the evidence down.

    Errors of the policy's samples, for outlines, are measured on the training split, which rollouts answered.

    Args:
      weights: folder of the head's weights.
      config: names policy, data and splits.
      phrases: judged per scene, the first ones.
      file: takes the evidence of all sources as JSON.

    Returns:
      `REFINED_FIGURES` of the policy's greedy paths after the last iteration, and of the same paths as they were
      before it; each with the count `n` of phrases.

    Raises:
      UserError: weights or data are missing or do not fit.
    """
    policy, params = load_policy(place(config.policy), config.model)
    source = open_split(config.data, config.eval_split)
    found = gather(
        load_refiner(weights, policy, params), policy, params, held_out_scenes(source, len(source)),
        known_scenes(place(config.data), config.train_split), phrases=phrases, seed=SAMPLING_SEED,
    )  # fmt: skip
    write_json(file, {name: evidence.as_data() for name, evidence in found.items()})
    return after(found["policy"]), before(found["policy"])


def after(evidence: Evidence) -> Figures:
    """`REFINED_FIGURES` after the last iteration; some phrase must have a target."""
    last = evidence.whole.iterations[-1]
    return {
        "miou": last.miou, "ciou": last.ciou, "biou_2px": last.biou_2px,
        "identity_iou": evidence.identity_iou[-1], "worse": evidence.worse[-1],
        "n": float(evidence.n),
    }  # fmt: skip


def before(evidence: Evidence) -> Figures:
    """The same of masks that are left as they are."""
    coarse = evidence.whole.iterations[0]
    return {
        "miou": coarse.miou, "ciou": coarse.ciou, "biou_2px": coarse.biou_2px, "identity_iou": 1.0, "worse": 0.0,
        "n": float(evidence.n),
    }  # fmt: skip
