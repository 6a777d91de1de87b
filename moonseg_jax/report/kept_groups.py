"""From the groups that a run left in its folder to what the page shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import polygons_of
from moonseg_jax.learner.credit import comparison
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.paths.fill import fill
from moonseg_jax.report.content import Groups, GroupSample, SampleGroup
from moonseg_jax.rollout.group_record import GroupRecord, Payment, load_groups
from moonseg_jax.types import FINISH_BUDGET, FINISH_INVALID, INJECTED

REMARKS = {FINISH_BUDGET: "out of budget", FINISH_INVALID: "invalid"}
TRACED = "traced target, put beside"


def groups_of_run(title: str, file: Path, config: Mapping[str, Any]) -> Groups:
    """Reads groups and compares their samples as the learner did.

    Args:
      title: of the stage.
      file: that the run left, see `GroupRecord`.
      config: of the run, as its `config.json` has it.

    Raises:
      UserError: the file is damaged, or the config does not say how rewards become advantages.
    """
    record = load_groups(file)
    try:
        loss, budget = PolicyLossConfig(**config["loss"]), int(config["model"]["paths"]["max_new_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: the run's config does not say how it compared samples ({error!r})") from error
    advantage, flat = advantages(loss, record.payment, budget)
    shown = len(record.samples)
    step = int(record.samples.steps[0]) + 1 if shown else 0
    return Groups(
        title=title,
        note=_note(step, shown, flat, config),
        groups=tuple(_group(record, place, advantage[place], bool(flat[place])) for place in range(shown)),
    )


def advantages(
    loss: PolicyLossConfig, payment: Payment, budget: int
) -> tuple[Float[np.ndarray, "Q G"], Bool[np.ndarray, " Q"]]:
    """Advantages of whole paths, by the learner's own formula, and which groups are flat.

    Args:
      loss: how rewards become advantages.
      payment: of the whole batch.
      budget: most tokens of a completion.
    """
    iou, reward, lengths, source = map(jnp.asarray, (payment.iou, payment.reward, payment.lengths, payment.source))
    found = comparison(loss, iou, reward, lengths, source, jnp.ones((len(iou), 1), bool), budget)
    return np.asarray(found.advantage), np.asarray(found.flat)[:, 0]


def _note(step: int, shown: int, flat: Bool[np.ndarray, " Q"], config: Mapping[str, Any]) -> str:
    said = (
        f"The first {shown} of the {len(flat)} groups of step {step}, by advantage; {int(flat.sum())} of the "
        f"{len(flat)} were filtered out. Drawn on the square that rewards are counted on."
    )
    if config.get("credit") == "token":
        said += " The run credits tokens; shown is the advantage of a path's first subpath, which is that of the whole."
    return said


def _group(record: GroupRecord, place: int, advantage: Float[np.ndarray, " G"], flat: bool) -> SampleGroup:
    truth, paid = record.samples.truth[place], record.payment
    samples = []
    for number in range(paid.iou.shape[1]):
        given = paid.source[place, number] == INJECTED
        if given and not paid.lengths[place, number]:
            continue
        polygons = () if given else _polygons(record, place, number)
        samples.append(
            GroupSample(
                polygons=polygons,
                mask=truth if given else fill([polygon * len(truth) for polygon in polygons], *truth.shape),
                iou=float(paid.iou[place, number]), reward=float(paid.reward[place, number]),
                advantage=float(advantage[number]), tokens=int(paid.lengths[place, number]),
                remark=TRACED if given else REMARKS.get(int(record.samples.finish[place, number]), ""),
            )
        )  # fmt: skip
    ranked = sorted(samples, key=lambda one: (-one.advantage, -one.iou))
    return SampleGroup(
        photo=record.photos[place], phrase=record.phrases[place], truth=truth, samples=tuple(ranked), flat=flat
    )


def _polygons(record: GroupRecord, place: int, number: int) -> tuple[Float[np.ndarray, "V 2"], ...]:
    points, valid, subpath = (
        values[place, number] for values in (record.samples.points, record.samples.valid, record.samples.subpath)
    )
    return tuple(polygon.astype(float) for polygon in polygons_of(points, valid, subpath))
