"""Sweeps of refiners: trials with their evidence, compared by refined figures; the sweep of the package."""

from pathlib import Path

import numpy as np
import pytest
from test_sweep_summary import JUDGEMENT, write_result
from test_sweep_trials import RUN, python

from moonseg_jax.errors import UserError
from moonseg_jax.refiner_evidence.calibration import calibration
from moonseg_jax.refiner_evidence.evidence import Evidence
from moonseg_jax.refiner_evidence.groups import Group, MaskFigures
from moonseg_jax.refiner_evidence.sources import SOURCES
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep.evidence_tables import sweep_evidence
from moonseg_jax.sweep.folder import open_sweep, trial_folder, write_shared
from moonseg_jax.sweep.summary import summarise
from moonseg_jax.sweep.sweep_file import load_sweep
from moonseg_jax.sweep.tables import mean_table
from moonseg_jax.sweep.trial import REFINED_FIGURES

REFINERS = """
from moonseg_jax.train_config import RefinerConfig

def refiner(**changes):
    model = dataclasses.replace(micro(), refiner=dataclasses.replace(micro().refiner, iterations=1))
    settings = {**COMMON, "policy": "start", "start_from": None, "pairs_from": "synthetic", "pair_count": 4}
    settings["model"] = model
    return RefinerConfig(**{**settings, "steps": 2, **changes})


def sweep():
    arms = {"plain": 0.0, "some_right": 0.5}
    trials = [Trial(arm=arm, config=refiner(identity_share=share)) for arm, share in arms.items()]
    return Sweep(trials=tuple(trials), baseline="plain", judged_by="biou_2px", eval_phrases=1)
"""
COARSE = {"miou": 0.6, "ciou": 0.6, "biou_2px": 0.3, "identity_iou": 1.0, "worse": 0.0, "n": 6.0}


ERRORS = """
import numpy as np
from moonseg_jax.refiner_evidence import sources
from moonseg_jax.refiner_evidence.outline_errors import OutlineErrors

one = np.zeros(1)
errors = OutlineErrors(shift=np.zeros((1, 2)), stretch=np.zeros((1, 2)), jitter=one + 0.05, kept=one + 0.5)
sources.sample_errors = lambda *_: errors
"""
"""Stands in for measured errors: samples of random weights overlap nothing."""


@pytest.mark.slow
def test_two_refiners_are_trained_judged_and_compared(moonseg, write_config, workplace):
    write_config(REFINERS)
    ran = python(ERRORS + RUN)
    assert ran.returncode == 0, ran.stderr
    code, _, error = moonseg("mine.py", "--out", "out", "--resume")
    assert code == 0 and error.count("finished before") == 2
    for arm in ("plain", "some_right"):
        folder = workplace / "out" / "trials" / f"{arm}-seed0"
        result = read_json(folder / "result.json", missing="")
        assert (result["stage"], result["figures"]["n"]) == ("refiner", 3)
        assert result["budget"] == {"steps": 2, "pairs_per_batch": 2, "pairs": 4}
        evidence = read_json(folder / "evidence.json", missing="")
        assert tuple(evidence) == SOURCES
        iterations = evidence["policy"]["groups"][0]["iterations"]
        assert len(iterations) == 2 and iterations[0]["miou"] == result["start"]["miou"]
        assert iterations[-1]["biou_2px"] == result["figures"]["biou_2px"]
    code, out, _ = moonseg("--summarise", "out")
    assert code == 0 and "boundary IoU, less plain" in out and "identity IoU" in out
    assert "boundary IoU 2 px by iteration, 3 coarse masks (policy)" in (workplace / "out/evidence.md").read_text()
    assert tuple(read_json(workplace / "out" / "summary.json", missing="")["figures"]) == REFINED_FIGURES


def test_refined_figures_are_compared_and_fewer_worse_masks_come_first(tmp_path):
    open_sweep(tmp_path, {**JUDGEMENT, "baseline": "a", "judged_by": "worse"})
    for arm, worse in (("a", 0.2), ("b", 0.1)):
        for seed in (0, 1):
            figures = {**COARSE, "worse": worse + 0.01 * seed, "biou_2px": 0.5}
            write_result(tmp_path, arm, seed, stage="refiner", figures=figures, start=COARSE)
    found = summarise(tmp_path)
    assert list(found.arms) == ["b", "a"] and found.figures == REFINED_FIGURES
    assert found.against_baseline["worse"]["b"].mean == pytest.approx(-0.1)
    assert found.against_start["biou_2px"]["a"].mean == pytest.approx(0.2)
    table = mean_table(found)
    assert table.columns[-3:] == ("worse", "steps", "training") and "after refinement" in table.note
    assert table.rows[1][:3] == ("b", "2", "0.6000 ± 0.0000") and table.rows[1][6] == "0.1050 ± 0.0050"


def evidence(biou):
    """Of one large mask, .3 at first, with these figures after two iterations."""
    steps = [MaskFigures(miou=0.5, ciou=0.5, biou_2px=value, biou_2pct=0.5) for value in (0.3, *biou)]
    flood = MaskFigures(miou=0.1, ciou=0.2, biou_2px=0.4, biou_2pct=0.3)
    groups = tuple(Group(name=name, n=1, iterations=tuple(steps), flood_fill=flood) for name in ("all", "large"))
    return Evidence(
        n=1, groups=groups, worse=(0.0, 0.25), identity_iou=(0.9, 0.8), statuses={}, flood_tolerance=60.0,
        calibration=calibration(np.array([0.7]), np.array([0.6])),
    ).as_data()  # fmt: skip


def test_evidence_is_averaged_over_seeds_by_arm(tmp_path):
    open_sweep(tmp_path, {**JUDGEMENT, "baseline": "a"})
    for arm, seed, biou in (("a", 0, (0.5, 0.6)), ("a", 1, (0.5, 0.8)), ("b", 0, (0.4, 0.45))):
        write_result(tmp_path, arm, seed, stage="refiner", figures=COARSE, start=COARSE)
        write_shared(trial_folder(tmp_path, f"{arm}-seed{seed}").evidence, {"outlines": evidence(biou)})
    tables = {table.title: table for table in sweep_evidence(tmp_path)}
    by_iteration = tables["boundary IoU 2 px by iteration, 1 coarse masks (outlines)"]
    assert by_iteration.columns == ("pairs of", "coarse", "1", "2") and "Flood fill of the same masks: 0.400" in (
        by_iteration.note
    )
    # .6 and .8: mean .7, standard deviation .1 √2, error .1.
    assert by_iteration.rows == (
        ("a", "0.300 ± 0.000", "0.500 ± 0.000", "0.700 ± 0.100"), ("b", "0.300", "0.400", "0.450"),
    )  # fmt: skip
    groups = tables["Boundary IoU 2 px by object size and by coarse IoU (outlines)"]
    assert groups.rows[1] == ("large", "1", "0.300", "0.700 ± 0.100", "0.450")
    head = tables["What the last iteration breaks, and what it says of itself (outlines)"]
    assert head.rows[1] == ("b", "0.250", "0.800", "0.100", "0.100", "–")
    trial_folder(tmp_path, "b-seed0").evidence.unlink()
    with pytest.raises(UserError, match=r"evidence\.json is missing"):
        sweep_evidence(tmp_path)


def test_policies_and_refiners_do_not_share_a_sweep(write_config):
    mixed = "\ndef sweep():\n    return Sweep(trials=(Trial(arm='a', config=sft()), Trial(arm='b', config=refiner())), "
    with pytest.raises(UserError, match="some trials train policies, others refiners"):
        load_sweep(write_config(REFINERS + mixed + "baseline='a')\n"))
    tokens = REFINERS.replace('judged_by="biou_2px"', 'judged_by="tokens"')
    with pytest.raises(UserError, match="judged_by is 'tokens'; it must be one of miou, ciou, biou_2px, identity_iou"):
        load_sweep(write_config(tokens))


def test_the_sources_of_pairs_differ_in_nothing_else():
    sweep = load_sweep(Path("experiments/refiner_sources.py"), overrides=["--pairs", "mine.npz"])
    assert set(sweep.arms) == {"rollouts", "synthetic", "both"} and sweep.judged_by == "biou_2px"
    assert len(sweep.trials) == 9 and sweep.equal == "steps"
    first = sweep.trials[0].config
    for trial in sweep.trials:
        changed = {name for name, value in vars(trial.config).items() if value != vars(first)[name]}
        assert changed <= {"seed", "pairs_from"} and trial.config.pairs_from == trial.arm
    assert first.pairs == "mine.npz" and first.pair_count
