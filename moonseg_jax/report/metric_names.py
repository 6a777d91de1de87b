"""What the names in `metrics.jsonl` mean, for people, and which charts belong together."""

from __future__ import annotations

HELD_OUT, REWARD, SAMPLES, OPTIMISATION, TIME, OTHER = (
    "Held-out scenes",
    "Reward and its terms",
    "Samples",
    "Optimisation",
    "Time and exchange",
    "Other",
)
PARTS = (HELD_OUT, REWARD, SAMPLES, OPTIMISATION, TIME, OTHER)
"""In the order of the page."""

_LABELS = {
    HELD_OUT: {
        "eval_miou": "mIoU", "eval_sampled_miou": "mIoU of samples at temperature 1", "eval_ciou": "cIoU",
        "eval_biou_2px": "boundary IoU, 2 px", "eval_biou_2pct": "boundary IoU, 2 % of the diagonal",
        **{f"eval_p{n}": f"share above IoU .{n // 10}" for n in range(50, 100, 10)},
        "eval_tokens": "tokens per path", "eval_n": "phrases judged",
    },
    REWARD: {
        "reward": "shaped reward", "sampled_iou": "raw IoU", "boundary_iou": "IoU near the boundary",
        "iou_small": "raw IoU, small objects", "iou_medium": "raw IoU, medium objects",
        "iou_large": "raw IoU, large objects",
    },
    SAMPLES: {
        "flat_groups": "groups filtered out (flat)", "hopeless_groups": "hopeless groups",
        "injected": "traced paths put beside groups, per step", "tokens": "tokens per sample",
        "out_of_budget": "share out of budget", "invalid": "share invalid", "refined_iou": "IoU of refined masks",
    },
    OPTIMISATION: {
        "policy_loss": "policy loss", "supervised": "supervised loss", "box": "box loss", "path": "path loss",
        "mask": "mask loss", "iou": "loss of predicted IoU", "entropy": "entropy per token, nats",
        "reference_kl": "KL to the starting policy", "mismatch_kl": "KL between sampler and learner",
        "effective_sample_size": "effective sample size", "clip_fraction": "share of tokens clipped",
        "correction_capped": "share of corrections capped", "box_distance": "box distance",
        "path_distance": "path distance", "heat": "heat-map loss", "words": "patch-word loss",
        "gradient_norm": "gradient norm", "skipped_steps": "skipped steps, so far",
    },
    TIME: {
        "seconds_per_step": "seconds per step", "seconds_rollout": "rollout, s per step",
        "seconds_learn": "learning, s per step", "useful_slots": "share of slots in use",
        "wait_seconds": "waiting for samples, s", "sync_seconds": "handing over weights, s",
        "sync_bytes": "weights handed over, bytes", "dropped_rollouts": "samples dropped",
    },
}  # fmt: skip
_PLACE = {name: (part, rank, label) for part in _LABELS for rank, (name, label) in enumerate(_LABELS[part].items())}
_PREFIXES = (("eval_", HELD_OUT), ("term_", REWARD), ("seconds_", TIME), ("sync_", TIME))
_LATER = 1_000
"""Rank of names that are only known by their beginning: behind all others, in the order of the file."""


def place_of(metric: str) -> tuple[str, int, str]:
    """The part a metric is shown in, its rank there, and its title.

    Args:
      metric: its name in `metrics.jsonl`; one that is not known is shown as it is.
    """
    if metric in _PLACE:
        return _PLACE[metric]
    for prefix, part in _PREFIXES:
        if metric.startswith(prefix):
            word = metric.removeprefix(prefix).replace("_", " ")
            title = {"term_": f"term {word}", "seconds_": f"{word}, s per step"}.get(prefix, word)
            # Terms come before what is broken down by size of the object.
            return part, 3 if prefix == "term_" else _LATER, title
    return OTHER, _LATER, metric
