"""The command line, `moonseg …`: parses, runs one command, turns errors into one line and an exit code."""

from __future__ import annotations

import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import tyro

import moonseg_jax
from moonseg_jax.bucket_errors import told
from moonseg_jax.commands import Command, Train
from moonseg_jax.commands_launch import Launch, split_command
from moonseg_jax.commands_plan import Plan
from moonseg_jax.commands_sweep import Sweep
from moonseg_jax.errors import SomeFailed, UserError
from moonseg_jax.storage import SCHEME, place

DESCRIPTION = """Moondream Segmentation in JAX: an image and a phrase go in, a path and a mask come out.

Start here:
  moonseg quickstart    train, refine, evaluate and report in minutes, on a CPU
  moonseg segment photo.png "the small red star" -o mask.png
`moonseg COMMAND --help` explains a command. `--debug`, anywhere, shows the traceback of an error.
"""

EXIT_NO, EXIT_USER_ERROR, EXIT_INTERRUPTED = 1, 2, 130
BUCKET = re.compile(r"(gs|s3|az)://")
ARGUMENT = ""
KNOW_BUCKETS = {
    "train": ("--out", "--data", "--start-from", "--policy", "--pairs"),
    "eval": ("--checkpoint", "--refiner", "--dataset", "--out", "-o"),
    "segment": (ARGUMENT, "--checkpoint", "--refiner"),
    "evidence": ("--checkpoint", "--refiner", "--data", "--known"),
    "serve": ("--checkpoint", "--refiner"),
    "demo": ("--checkpoint", "--refiner"),
    "report": (ARGUMENT, "--beside", "--out", "-o"),
    "import": ("--weights", "--out", "--config", "--refiner", "--tokenizer", "--json"),
    "export": ("--checkpoint", "--out", "--refiner-from"),
}
"""Command → what may be the address of a bucket: options, or an argument without one."""
PLACES = tyro.constructors.ConstructorRegistry()
MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
PARSING: Any = {"config": MARKERS, "registry": PLACES}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: The words after `moonseg`; those of the process by default.

    Returns:
      0; 1 where the answer is no (`plan`: it does not fit) or some of many pieces of work failed; 2 after bad input,
      told in one line on standard error; 130 after Ctrl-C.

    Raises:
      SystemExit: From tyro: 0 after `--help`, 2 after options that do not parse.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if words[:1] != ["launch"]:  # There it may belong to the command that is launched.
        words = [word for word in words if word != "--debug"]
    if words == ["--version"]:
        print(f"moonseg-jax {moonseg_jax.__version__}")
        return 0
    try:
        with told():
            return _run(words or ["--help"])
    except KeyboardInterrupt:
        print("moonseg: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has left; without this the interpreter complains once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SomeFailed as error:
        print(f"moonseg: {error}", file=sys.stderr)
        return EXIT_NO
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # Raised by a library, not by the system: a bug until someone says better.
        if debug:
            traceback.print_exc()
        print(f"moonseg: error: {_message(error)}", file=sys.stderr)
        return EXIT_USER_ERROR


def _message(error: UserError | OSError) -> str:
    """What to tell; the system's errors name the file: no permission, a full disk, a folder that is not there."""
    if isinstance(error, PermissionError):
        return f"no permission: {error.filename or error}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error)


def _run(words: list[str]) -> int:
    _refuse_buckets(words)
    if words[0] == "train":
        words, help_words = _withhold_settings_help(words[1:])
        train, rest = tyro.cli(Train, args=words, prog="moonseg train", **PARSING, return_unknown_args=True)
        train.run([*rest, *help_words])
    elif words[0] == "plan":
        plan, rest = tyro.cli(Plan, args=words[1:], prog="moonseg plan", **PARSING, return_unknown_args=True)
        return 0 if plan.run(rest) else EXIT_NO
    elif words[0] == "sweep":
        sweep, rest = tyro.cli(Sweep, args=words[1:], prog="moonseg sweep", **PARSING, return_unknown_args=True)
        sweep.run(rest)
    elif words[0] == "launch":
        options, command = split_command(words[1:])
        tyro.cli(Launch, args=options, prog="moonseg launch", **PARSING).run(command)
    else:
        tyro.cli(Command, args=words, prog="moonseg", description=DESCRIPTION, **PARSING).run()
    return 0


def _refuse_buckets(words: Sequence[str]) -> None:
    """A bucket's address, taken for a folder's name, would become a folder of this machine called `gs:`.

    Raises:
      UserError: one is named where only folders of this machine are known, or it is not Google's.
    """
    known = KNOW_BUCKETS.get(words[0], ())
    for before, word in itertools.pairwise(["", *words]) if words[0] != "launch" else ():
        option, _, value = word.partition("=") if word.startswith("-") else (before, "", word)
        option = option if option.startswith("-") else ARGUMENT
        if not BUCKET.match(value) or (value.startswith(SCHEME) and option.replace("_", "-") in known):
            continue
        if option in known:
            raise UserError(f"{option} {value}: of buckets only {SCHEME}… addresses are known".lstrip())
        raise UserError(
            f"{option or words[0]} {value}: a folder or file of this machine is needed here, not a bucket; copy what "
            "is read to this machine first (gcloud storage cp --recursive), and what was written afterwards"
        )


@PLACES.primitive_rule
def _place_of(wanted: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """Options that name folders or files: those of buckets as places that can be read and written."""
    if wanted.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1, metavar="PATH", instance_from_str=lambda texts: place(texts[0]),
        is_instance=lambda value: isinstance(value, PurePath), str_from_instance=lambda path: [str(path)],
    )  # fmt: skip


def _withhold_settings_help(words: list[str]) -> tuple[list[str], list[str]]:
    """Where a config is named, `--help` asks for that config's settings, not for the options of `train`."""
    if not any(word.split("=")[0] == "--config" for word in words):
        return words, []
    kept = [word for word in words if word not in ("-h", "--help")]
    return kept, ["--help"] * (len(kept) < len(words))


if __name__ == "__main__":
    sys.exit(main())
