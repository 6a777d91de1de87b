"""What `moonseg score` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from moonseg_jax.evaluation.table import COLUMNS, figure


def score_table(result: Mapping[str, Any]) -> Table:
    """All figures, a row each for the whole and for every size of objects.

    Args:
      result: what `score_predictions` gives.
    """
    table = Table(box=box.MARKDOWN)
    table.add_column("", no_wrap=True)
    for heading in (*COLUMNS, "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in {"all": result["figures"], **result["by_size"]}.items():
        table.add_row(name, *(figure(found[key]) for key in COLUMNS.values()), str(found["n"]))
    return table


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What does not fit into the table."""
    (low, high), (low_c, high_c) = (result["intervals"][name] for name in ("miou", "ciou"))
    statuses = result["statuses"]
    lines = [
        f"95 % mIoU {figure(low)} to {figure(high)}, cIoU {figure(low_c)} to {figure(high_c)}",
        f"{statuses['answered']} answered, {statuses['missing']} missing (count as empty), {statuses['empty']} empty",
    ]
    found = result["figures"]
    if "n_acc" in found:
        lines.append(
            f"N-acc {figure(found['n_acc'])}" + (f", T-acc {figure(found['t_acc'])}" if "t_acc" in found else "")
        )
    if "class_miou" in result:
        lines.append(f"mean over {result['classes']} classes: {figure(result['class_miou'])} mIoU")
    if result["left_out"]:
        lines.append(f"{result['left_out']} entries of the annotations are no samples")
    return lines
