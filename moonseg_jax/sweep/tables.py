"""A summary as tables of text, for the terminal and the page alike."""

from __future__ import annotations

from moonseg_jax.report.content import Table
from moonseg_jax.sweep.paired import Mean, PairedTest
from moonseg_jax.sweep.summary import Summary, Tests
from moonseg_jax.sweep.trial import REFINED_FIGURES

TITLES = {
    "miou": "mIoU", "ciou": "cIoU", "biou_2px": "boundary IoU", "tokens": "tokens", "sampled_miou": "sampled mIoU",
    "identity_iou": "identity IoU", "worse": "worse",
}  # fmt: skip
COARSE_NOTE = "Greedy paths before refinement, except sampled mIoU (one sample per phrase at T = 1)."
REFINED_NOTE = (
    "Greedy paths after refinement; start: before it. Identity IoU: what is left of ground truths that are refined. "
    "Worse: share of masks that lost more than .01 IoU."
)
NOTE = (
    "n: pairs. ±: standard error. t: two-sided p of the paired t-test; signs: of all sign flips (5 pairs or more). "
    "Holm: that p, corrected over the arms of this table."
)


def mean_table(summary: Summary) -> Table:
    """Every arm: mean ± standard error over its seeds, and the seconds it trained."""
    rows = (
        [("start", "", *(_plain(summary.start[name], name) for name in summary.figures), "", "")]
        if summary.start
        else []
    )
    for name, arm in summary.arms.items():
        cells = [_mean(arm.figures[figure], figure) for figure in summary.figures]
        label = f"{name} (baseline)" if name == summary.baseline else name
        rows.append((label, str(len(arm.seeds)), *cells, str(arm.budget["steps"]), f"{arm.train_seconds:.0f} s"))
    return Table(
        title=f"Held-out figures, mean ± standard error over seeds, {summary.phrases} phrases",
        columns=("arm", "seeds", *(TITLES[figure] for figure in summary.figures), "steps", "training"),
        rows=tuple(rows),
        note=(REFINED_NOTE if summary.figures == REFINED_FIGURES else COARSE_NOTE)
        + " Training: mean over seeds of the median seconds per step times the steps. "
        + _of_skips(summary),
    )


def test_tables(summary: Summary) -> list[Table]:
    """For each figure, every arm against the baseline and against the start."""
    pairs = [(f"less {summary.baseline}", summary.against_baseline), ("less its start", summary.against_start)]
    return [
        _test_table(f"{TITLES[figure]}, {against}", tests, figure)
        for figure in summary.figures
        for against, tests in pairs
        if tests.get(figure)
    ]


def unfinished_table(summary: Summary) -> Table | None:
    """Trials that the figures leave out, and why; None where there are none."""
    if not summary.unfinished:
        return None
    return Table(
        title=f"{len(summary.unfinished)} trials without a result, in none of the figures",
        columns=("trial", "status", "reason"),
        rows=tuple((one.name, one.status, one.reason) for one in summary.unfinished),
    )


def _test_table(title: str, tests: Tests, figure: str) -> Table:
    rows = tuple(
        (
            arm, str(test.n), _difference(test, figure), _p(test.t_p), _p(test.t_p_holm), _p(test.sign_flip_p),
            _p(test.sign_flip_p_holm),
        )
        for arm, test in tests[figure].items()
    )  # fmt: skip
    return Table(
        title=title, columns=("arm", "n", "difference", "t", "t, Holm", "signs", "signs, Holm"), rows=rows, note=NOTE
    )


def _of_skips(summary: Summary) -> str:
    skipped = {name: arm.skipped_steps for name, arm in summary.arms.items() if arm.skipped_steps}
    if not skipped:
        return "No step was skipped."
    return "Steps skipped, all seeds together: " + ", ".join(f"{name} {count}" for name, count in skipped.items()) + "."


def _places(figure: str) -> int:
    return 2 if figure == "tokens" else 4


def _plain(value: float, figure: str) -> str:
    return f"{value:.{_places(figure)}f}"


def _mean(mean: Mean, figure: str) -> str:
    error = "" if mean.standard_error is None else f" ± {mean.standard_error:.{_places(figure)}f}"
    return _plain(mean.mean, figure) + error


def _difference(test: PairedTest, figure: str) -> str:
    error = "" if test.standard_error is None else f" ± {test.standard_error:.{_places(figure)}f}"
    return f"{test.mean:+.{_places(figure)}f}{error}"


def _p(value: float | None) -> str:
    return "–" if value is None else ("<.001" if value < 0.001 else f"{value:.3f}")
