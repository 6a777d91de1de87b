"""Turns finished runs of `experiments/shapes_tiny.py` into the weights shipped with the package, with their model card.

    python -m moonseg_jax.ship --sft runs/shapes_tiny-sft --rl runs/shapes_tiny-rl \
        --refiner runs/shapes_tiny-refiner

A supervised stage that was continued is named with all its runs, the first one first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from moonseg_jax.evaluation.run import evaluate
from moonseg_jax.evaluation.settings import EvalSettings
from moonseg_jax.policy import load_policy
from moonseg_jax.refine import load_refiner
from moonseg_jax.run_directory import METRICS_FILE, read_metrics
from moonseg_jax.weights import POLICY, REFINER, save_weights

ASSETS = Path(__file__).parent / "assets" / "shapes_tiny"
SCENES = 500
CARD = """---
license: apache-2.0
library_name: moonseg-jax
pipeline_tag: image-segmentation
language: en
tags:
  - jax
  - flax
  - referring-image-segmentation
  - reinforcement-learning
  - moondream
---

# Small checkpoints of the embedded shapes

They know coloured shapes on 96-pixel scenes and nothing else: they make `moonseg segment` and the quickstart
meaningful on a CPU. Preset `tiny`, about a million parameters, the architecture of Moondream 3 with its refinement
head; weights in bfloat16; Apache-2.0.

| folder | what | trained for |
|---|---|---|
| `sft` | policy after supervised learning | {sft} |
| `rl` | the same policy after reinforcement learning on mask IoU | {rl} |
| `refiner` | refinement head, on the rollouts of that stage | {refiner} |

## How to use

```python
from moonseg_jax.predict import Segmenter

answer = Segmenter.load().segment("scene.png", "the bottommost ring")  # these checkpoints
answer.mask, answer.refined_path, answer.score
```

or `moonseg segment scene.png "the bottommost ring" -o mask.png`. `moonseg export` writes them as safetensors under
official names, for PyTorch.

## Intended use

To start from and to measure with: quickstart, tests, benchmarks, sweeps of rewards, and the page that a newcomer
follows. Reinforcement learning starts from `sft`.

## Out of scope

Photos, and anything but the drawn scenes: an answer there means nothing. Deciding whether an object is there: the
model was never taught to say no, and its score hardly tells.

## Training data

Procedural scenes of the project (`moonseg data build shapes --level 2`): coloured, textured shapes with exact masks,
and phrases that name one of them by colour, kind, size and place. No photo, no person, nobody's data. Held-out scenes
have other seeds or splits, and are never trained on.

Recipe: `experiments/shapes_tiny.py`, seed 0, two CPU cores. Curves: `metrics.jsonl` in each folder.

{history}

{remark}

## Evaluation
`moonseg eval --scenes {scenes}` (level 2, scenes never used in training; greedy paths)

{evaluation}

## Limits

- The outline is coarse before refinement (mIoU {coarse:.3f}, refined {refined:.3f}), and refinement breaks some masks
  that were right ([figures](../../../docs/refiner.md)).
- Reinforcement learning at T = 1 made samples better and left the greedy path where it was.
- The vocabulary is that of the scenes, and category names of COCO, which were never trained; any other word is refused.
- Nothing here says how the method goes at other sizes or on other data.
"""
"""The model card; fields are filled in by `card`."""


def ship(sft: tuple[Path, ...], rl: Path, refiner: Path, remark: str = "") -> None:
    """Writes bfloat16 weights, measures them as they are shipped, and writes the card.

    Args:
      sft: runs of the supervised stage, each started from the one before; the best weights of the last are shipped.
      rl: run of the RL stage; its last weights are shipped.
      refiner: run of the refiner stage; its last weights are shipped.
      remark: what the runs' records do not say, for the card.
    """
    supervised, params = load_policy(sft[-1] / "best")
    save_weights(ASSETS / "sft", POLICY, params, supervised.config, "bfloat16")
    policy, params = load_policy(rl / "last")
    save_weights(ASSETS / "rl", POLICY, params, policy.config, "bfloat16")
    head = load_refiner(refiner / "last", policy, params).head_params
    save_weights(ASSETS / "refiner", REFINER, head, policy.config, "bfloat16")
    stages = {"sft": sft, "rl": (rl,), "refiner": (refiner,)}
    for name, runs in stages.items():
        records = [
            {"run": number, **record}
            for number, run in enumerate(runs, 1)
            for record in read_metrics(run / METRICS_FILE)
        ]
        lines = [json.dumps(record) + "\n" for record in records]
        (ASSETS / name / METRICS_FILE).write_text("".join(lines), encoding="utf-8")

    figures = {
        "sft": _measured(EvalSettings(checkpoint=ASSETS / "sft", stage="coarse", limit=SCENES)),
        "rl": _measured(EvalSettings(checkpoint=ASSETS / "rl", refiner=ASSETS / "refiner", limit=SCENES)),
    }
    (ASSETS / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (ASSETS / "README.md").write_text(card(figures, stages, remark), encoding="utf-8")


def _measured(settings: EvalSettings) -> dict[str, Any]:
    """The figures of an evaluation, without what depends on the machine."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = evaluate(settings, Path(folder) / "eval")
    assert metrics is not None, "this is the only process"
    return {name: value for name, value in metrics.items() if name not in ("seconds", "config")}


def card(figures: dict[str, Any], stages: Mapping[str, Sequence[Path]], remark: str) -> str:
    """The model card as Markdown: stage → its runs."""
    efforts = {stage: _effort(runs) for stage, runs in stages.items()}
    return CARD.format(
        **efforts, history=_history(stages["sft"]), remark=remark, evaluation=evaluation(figures), scenes=SCENES,
        coarse=figures["rl"]["coarse"]["miou"], refined=figures["rl"]["refined"]["miou"],
    )  # fmt: skip


def evaluation(figures: dict[str, Any]) -> str:
    """The card's held-out figures: a table, and what stands beside it."""
    columns = ("miou", "ciou", "p50", "biou_2px", "n")
    rows = [
        ("supervised, coarse", figures["sft"]["coarse"], figures["sft"]["sampled_miou"]),
        ("after RL, coarse", figures["rl"]["coarse"], figures["rl"]["sampled_miou"]),
        ("after RL, refined", figures["rl"]["refined"], None),
    ]
    table = [
        "| | mIoU | cIoU | P@.5 | boundary IoU 2 px | phrases | sampled mIoU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row, sampled in rows:
        cells = [f"{row[column]:.3f}" if column != "n" else f"{row[column]:.0f}" for column in columns]
        table.append(f"| {name} | " + " | ".join(cells) + f" | {'' if sampled is None else f'{sampled:.3f}'} |")
    base = figures["rl"]["baselines"]
    floods = [f"{figures[stage]['baselines']['flood_fill_gain']:+.3f}" for stage in ("rl", "sft")]
    return f"""{chr(10).join(table)}

Baselines on the same phrases: a random other object's true mask {base["other_object"]:.3f} mIoU, the ground-truth box
filled {base["filled_box"]:.3f}, flood fill of the colour under the coarse outline {floods[0]} against
that outline after RL, which is what the refiner gets ({floods[1]} against the supervised one)."""


def _effort(runs: Sequence[Path]) -> str:
    ends = [read_metrics(run / METRICS_FILE)[-1] for run in runs]
    steps, hours = (sum(end[key] for end in ends) for key in ("step", "wall_seconds"))
    return f"{steps:,} steps{f' in {len(runs)} runs' if len(runs) > 1 else ''}, {hours / 3600:.1f} h"


def _history(runs: Sequence[Path]) -> str:
    """The supervised runs as a Markdown table, each started from the weights of the one above."""
    lines = [
        "| supervised run | steps | of boxes only | peak rate | hours | held-out coarse mIoU |",
        "|---|---|---|---|---|---|",
    ]
    for number, run in enumerate(runs, 1):
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))["config"]
        records = read_metrics(run / METRICS_FILE)
        held_out = [record["eval_miou"] for record in records if "eval_miou" in record]
        cells = (
            f"{number}", f"{records[-1]['step']:,}", f"{config['box_steps']:,}",
            f"{config['optimizer']['learning_rate']:g}", f"{records[-1]['wall_seconds'] / 3600:.1f}",
            f"{held_out[0]:.3f} → {held_out[-1]:.3f}" if held_out else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(ship)
