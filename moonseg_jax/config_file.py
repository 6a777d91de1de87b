"""Configs as Python files: finding one, loading one stage of it, changing settings from the command line.

A config file defines `get_config(stage)`, where stage is `sft`, `rl` or `refiner`, and returns the config of
that stage: an `SftConfig`, `RlConfig` or `RefinerConfig`. It is the user's own program and runs as such.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from moonseg_jax.errors import UserError
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

Stage = Literal["sft", "rl", "refiner"]
StageConfig = SftConfig | RlConfig | RefinerConfig
ConfigT = TypeVar("ConfigT")

CONFIG_TYPES: dict[Stage, type[SftConfig] | type[RlConfig] | type[RefinerConfig]] = {
    "sft": SftConfig,
    "rl": RlConfig,
    "refiner": RefinerConfig,
}


def load_config(path: Path, stage: Stage) -> StageConfig:
    """Runs a config file and asks it for the config of one stage.

    Args:
      path: The file. `experiments/NAME.py` also names a config shipped with the package.
      stage: Which stage's config.

    Raises:
      UserError: No such file, the file fails, or it does not give the config of that stage.
    """
    path, config = call_config(path, "get_config", stage)
    wanted = CONFIG_TYPES[stage]
    if not isinstance(config, wanted):
        raise UserError(
            f"{path}: get_config({stage!r}) must return a {wanted.__name__}, but returned a {type(config).__name__}"
        )
    return config


def call_config(path: Path, function: str, *arguments: Any) -> tuple[Path, Any]:
    """Runs a config file and calls one of its functions.

    Args:
      path: as in `load_config`.
      function: name of the function: `get_config`, `sweep`, `search`.
      *arguments: what it is called with.

    Returns:
      The file that was meant, and what the function returned.

    Raises:
      UserError: No such file, the file fails, or it has no such function or the function fails.
    """
    path = find_config(path)
    module = _run(path)
    called = getattr(module, function, None)
    shown = ", ".join(repr(one) for one in arguments) if all(isinstance(one, str) for one in arguments) else "…"
    if not callable(called):
        example = "stage" if function == "get_config" else ("trial" if arguments else "")
        raise UserError(f"{path} has no {function}({example}); see experiments/README.md for what a config file holds")
    try:
        return path, called(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_place(path, error)}: {function}({shown}) failed: {_describe(error)}") from error


def config_value(path: Path, name: str, default: Any) -> Any:
    """Runs a config file and gives one of its values, or the default where it has none of that name.

    Raises:
      UserError: no such file, or the file fails.
    """
    return getattr(_run(find_config(path)), name, default)


def find_config(path: Path) -> Path:
    """The config file a user means: the path itself, or else the shipped `experiments/NAME.py`.

    Raises:
      UserError: Neither exists; lists the shipped ones.
    """
    if path.is_file():
        return path
    shipped = _shipped_folder()
    inside = path if path.parent.name != "experiments" else Path(path.name)
    if len(inside.parts) == 1 and (shipped / inside.with_suffix(".py")).is_file():
        return shipped / inside.with_suffix(".py")
    files = [file for file in shipped.glob("[!_]*.py") if "def get_config" in file.read_text(encoding="utf-8")]
    names = ", ".join(sorted(f"experiments/{file.name}" for file in files))
    raise UserError(f"no config file {path}; shipped with the package: {names or 'none'}")


def with_overrides(config: ConfigT, overrides: Sequence[str], *, prog: str) -> ConfigT:
    """The config with settings changed as on a command line: `--steps 100 --model.text.width=64`.

    Args:
      config: A dataclass, possibly of dataclasses.
      overrides: The words of the command line; `--help` prints every setting and its value.
      prog: What the help calls the program.

    Raises:
      UserError: A setting does not exist; names the nearest.
      SystemExit: With code 2 after tyro has said which value does not fit; with 0 after `--help`.
    """
    known = list(setting_names(config))
    for word in overrides:
        if word in ("-h", "--help") or not word.startswith("--"):
            continue
        typed = word.split("=")[0]
        name = typed.removeprefix("--").replace("-", "_")
        last = name.rpartition(".")[2]
        positive = name.removesuffix(last) + last.removeprefix("no_")
        if name not in known and positive not in known:
            raise UserError(f"no setting {typed} in {type(config).__name__}; {nearest(name, known)}")
    return tyro.cli(
        type(config), default=config, args=overrides, prog=prog, config=(tyro.conf.AvoidSubcommands,),
        registry=_constructors(),
    )  # fmt: skip


def setting_names(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings of a config, depth first."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, RewardSpec):
            yield from setting_names(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def nearest(name: str, known: Sequence[str]) -> str:
    """A remedy for a misspelt setting: the most similar name, or those with the most similar last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close:
        last_parts = sorted({one.rpartition(".")[2] for one in known})
        similar = difflib.get_close_matches(name.rpartition(".")[2], last_parts, n=1, cutoff=0.7)
        close = [one for one in known if one.rpartition(".")[2] in similar]
    if not close:
        return "--help lists them"
    return "did you mean " + " or ".join("--" + one.replace("_", "-") for one in close) + "?"


def config_text(config: Any) -> str:
    """A config as JSON, for the run's folder: every setting by name."""
    return json.dumps(dataclasses.asdict(config), default=os.fspath)


def _constructors() -> ConstructorRegistry:
    """How settings are read that are more than words and numbers: rewards are named."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def reward(setting: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if setting.type != str | RewardSpec:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="SHAPE",
            instance_from_str=lambda words: words[0],
            is_instance=lambda value: isinstance(value, str | RewardSpec),
            str_from_instance=lambda value: [value if isinstance(value, str) else "as in the config file"],
        )

    return registry


def _shipped_folder() -> Path:
    spec = importlib.util.find_spec("experiments")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the experiments package is not installed: install moonseg-jax again")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"moonseg_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: a config file ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module by name while they are being defined.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_place(path, error)}: {_describe(error)}") from error
    return module


def _place(path: Path, error: Exception) -> str:
    """The file and, where the error comes from it, the line."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{path}, line {error.lineno}"
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path}, line {inside[-1].lineno}" if inside else str(path)


def _describe(error: Exception) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}"
