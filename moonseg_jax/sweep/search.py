"""A search instead of a grid: an Optuna study that proposes trials from what the earlier ones came to.

The study is a journal, DIR/study.journal, which any number of processes share. A config file's `search(trial)` takes
an Optuna trial, asks it for values (`trial.suggest_float("optimizer.learning_rate", 1e-5, 1e-3, log=True)`) and
returns the config to run with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from moonseg_jax.config_file import call_config, with_overrides
from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import read_json
from moonseg_jax.sweep.folder import TrialFolder, lock, open_sweep, trial_folder, write_shared
from moonseg_jax.sweep.run_trial import run_trial
from moonseg_jax.sweep.trial import Trial
from moonseg_jax.train_config import RlConfig, SftConfig

JOURNAL, STUDY_FILE, STUDY_NAME = "study.journal", "study.json", "moonseg"
EVAL_PHRASES = 2


class Search:
    """One process's view of a study."""

    def __init__(self, config: Path, out: Path, figure: str, overrides: Sequence[str] = ()):
        """Makes the study, or joins it.

        Args:
          config: file with `search(trial)`.
          out: folder of the study.
          figure: what is searched for the best of, one of `FIGURES`: the fewest tokens, or the most of another.
          overrides: settings of every trial, as on a command line; they win over what is suggested.

        Raises:
          UserError: Optuna is not installed, or the folder holds something else.
        """
        self._optuna = _optuna()
        self._config, self._out, self._figure, self._overrides = config, out, figure, overrides
        open_sweep(out, {"kind": "search", "judged_by": figure, "eval_phrases": EVAL_PHRASES})
        self._console = Console(stderr=True)
        backend = self._optuna.storages.journal.JournalFileBackend(str(out / JOURNAL))
        with self._alone():
            self._study = self._optuna.create_study(
                storage=self._optuna.storages.JournalStorage(backend), study_name=STUDY_NAME, load_if_exists=True,
                direction="minimize" if figure == "tokens" else "maximize",
            )  # fmt: skip

    def run(self, trials: int, *, resume: bool = False) -> None:
        """Runs trials until the study has so many, those of other processes included.

        Args:
          trials: in all; a failed one counts.
          resume: go on with those that died with their process.

        Raises:
          UserError: a trial died with its process and `resume` is not asked for; the config file is broken; or, at the
            end, no trial has succeeded.
        """
        while True:
            with contextlib.ExitStack() as held:
                with self._alone():
                    taken = self._orphan(held, resume) or self._proposal(held, trials)
                if taken is None:
                    break
                self._take(*taken)
        self._report()

    def _alone(self) -> Any:
        """Only one process at a time counts, asks and takes, so that none runs what another has."""
        return lock(self._out / "study.lock", wait=True)

    def _orphan(self, held: contextlib.ExitStack, resume: bool) -> tuple[int, Trial] | None:
        """A trial whose process is gone."""
        running = self._optuna.trial.TrialState.RUNNING
        for frozen in self._study.get_trials(deepcopy=False, states=(running,)):
            folder = self._folder(frozen.number)
            folder.path.mkdir(parents=True, exist_ok=True)
            if held.enter_context(folder.held()):
                if not resume:
                    raise UserError(f"{folder.path} was begun and its process is gone; --resume goes on with it")
                suggested = self._optuna.trial.FixedTrial(frozen.params, number=frozen.number)
                return frozen.number, self._built(suggested, frozen.number)
        return None

    def _proposal(self, held: contextlib.ExitStack, trials: int) -> tuple[int, Trial] | None:
        """The next trial of the study; None where it has enough."""
        number = len(self._study.get_trials(deepcopy=False))
        if number >= trials:
            return None
        # Seeded by the number: the same history leads to the same proposal, in whichever process.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=number, constant_liar=True)
        asked = self._study.ask()
        trial = self._built(asked, asked.number)
        folder = self._folder(asked.number)
        folder.enrol(trial)
        held.enter_context(folder.held())
        return asked.number, trial

    def _built(self, suggested: Any, number: int) -> Trial:
        """The trial of a suggestion; one that cannot be built is told to the study, so that it does not stay open."""
        try:
            return self._trial(suggested, number)
        except UserError:
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            raise

    def _trial(self, suggested: Any, number: int) -> Trial:
        path, config = call_config(self._config, "search", suggested)
        if not isinstance(config, SftConfig | RlConfig):
            raise UserError(
                f"{path}: search(trial) must return an SftConfig or RlConfig, not a {type(config).__name__}"
            )
        if self._overrides:
            config = with_overrides(config, self._overrides, prog=f"moonseg sweep {path}")
        return Trial(arm=f"search{number:04d}", config=config)

    def _folder(self, number: int) -> TrialFolder:
        return trial_folder(self._out, f"search{number:04d}")

    def _take(self, number: int, trial: Trial) -> None:
        """Runs a trial that this process holds, and tells the study."""
        folder = self._folder(number)
        self._console.rule(f"trial {number}")
        folder.enrol(trial)
        if folder.status != "finished":
            run_trial(trial, folder, self._out, EVAL_PHRASES)
        with self._alone():
            if folder.status == "finished":
                figures = read_json(folder.result, missing="")["figures"]
                self._study.tell(number, figures[self._figure])
            else:
                self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
                self._console.print(f"failed: {folder.reason}", highlight=False, markup=False)
            self._write()

    def _write(self) -> None:
        """`study.json`: every trial with its values and what it came to."""
        trials = [
            {
                "number": one.number, "state": one.state.name.lower(), "params": one.params, self._figure: one.value,
                "reason": self._folder(one.number).reason,
            }
            for one in self._study.get_trials(deepcopy=False)
        ]  # fmt: skip
        write_shared(self._out / STUDY_FILE, {"judged_by": self._figure, "trials": trials})

    def _report(self) -> None:
        complete = self._optuna.trial.TrialState.COMPLETE
        if not self._study.get_trials(deepcopy=False, states=(complete,)):
            raise UserError(f"{self._out}: no trial of the search has succeeded; see {self._out / STUDY_FILE}")
        best = self._study.best_trial
        values = ", ".join(f"{name} {value}" for name, value in best.params.items())
        self._console.print(
            f"best: trial {best.number}, {self._figure} {best.value:.4f}, with {values} (all in "
            f"{self._out / STUDY_FILE}). The best of many on the held-out split flatters: confirm it over seeds.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _optuna() -> ModuleType:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise UserError("a search needs Optuna, which is optional: pip install 'moonseg-jax[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
