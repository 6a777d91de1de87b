"""Copies of a run's metrics for TensorBoard and Weights & Biases; `metrics.jsonl` is written in any case."""

from __future__ import annotations

import importlib.util
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from moonseg_jax.errors import UserError
from moonseg_jax.run_directory import CONFIG_FILE, RunDirectory, read_json, write_json
from moonseg_jax.storage import absolute, in_bucket

LoggerName = Literal["tensorboard", "wandb"]
LIBRARIES: dict[LoggerName, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""Logger → the library it needs; the package's extra bears the logger's name."""
TENSORBOARD_FOLDER = "tensorboard"
WANDB_FILE = "wandb.json"
"""Holds the run's id, so that a resumed run goes on under it."""
PROJECT = "moonseg"


class Logger(Protocol):
    """Takes figures of a step."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes finite figures down."""

    def close(self) -> None:
        """Writes what is left."""


def require_libraries(names: Sequence[LoggerName]) -> None:
    """Refuses loggers whose library is not installed.

    Raises:
      UserError: names all that are missing and the extra to install.
    """
    missing = [name for name in names if importlib.util.find_spec(LIBRARIES[name]) is None]
    if missing:
        raise UserError(
            f"loggers: {', '.join(missing)} cannot be used, {', '.join(LIBRARIES[name] for name in missing)} is not "
            f"installed: pip install 'moonseg-jax[{','.join(missing)}]', or leave it out of loggers"
        )


def open_loggers(names: Sequence[LoggerName], run: RunDirectory, first_step: int) -> list[Logger]:
    """Opens the named loggers in a run's folder.

    Args:
      names: which.
      run: the run; its config is what W&B shows.
      first_step: steps done before; what was logged of later ones is void.

    Raises:
      UserError: a library is missing, or W&B cannot start.
    """
    require_libraries(names)
    if "tensorboard" in names and in_bucket(run.path):
        raise UserError(
            f"loggers: tensorboard appends to a file, which a bucket ({run.path}) cannot hold; leave it out of loggers "
            "(metrics.jsonl has the same figures), or name a folder of this machine with --out"
        )
    openers: dict[LoggerName, Callable[[RunDirectory, int], Logger]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
    }
    return [openers[name](run, first_step) for name in dict.fromkeys(names)]


class TensorBoard:
    """An event file of the folder `tensorboard` of a run; a resumed run adds one and purges later steps."""

    def __init__(self, run: RunDirectory, first_step: int) -> None:
        """Opens the file; see `open_loggers`."""
        from tensorboardX import SummaryWriter

        purge = first_step + 1 if first_step else None
        # File names tell seconds only: without the step, a run resumed within one would overwrite its first file.
        folder, suffix = str(run.path / TENSORBOARD_FOLDER), f".from-{first_step}"
        self._writer = SummaryWriter(folder, purge_step=purge, filename_suffix=suffix)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds scalars and flushes them."""
        for name, value in _finite(figures).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run, resumed under the same id. `WANDB_MODE=offline` needs no network and no account.

    W&B takes nothing back: steps that a resumed run repeats after a crash are there twice, under the same `step`.
    """

    def __init__(self, run: RunDirectory, first_step: int) -> None:
        """Starts or resumes the run; see `open_loggers`.

        Raises:
          UserError: there is no account, or no network.
        """
        import wandb

        file = run.path / WANDB_FILE
        if not file.is_file():
            write_json(file, {"id": uuid.uuid4().hex[:12]})
        identity = str(read_json(file, missing="")["id"])
        config = read_json(run.path / CONFIG_FILE, missing=f"{run.path / CONFIG_FILE} is missing")["config"]
        try:
            self._run: Any = wandb.init(
                project=PROJECT, name=_name(run.path), id=identity, resume="allow", config=config,
                dir=None if in_bucket(run.path) else str(run.path), job_type=run.kind,
                settings=wandb.Settings(console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise UserError(
                f"loggers: wandb could not start ({error}); run `wandb login`, set WANDB_MODE=offline, or leave it out"
            ) from error
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs one row."""
        self._run.log({"step": step, **_finite(figures)})

    def close(self) -> None:
        """Ends the sitting; the run can be resumed."""
        self._run.finish()


def _name(folder: Path) -> str:
    return "/".join(absolute(folder).parts[-2:])


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if math.isfinite(float(value))}
