"""Pages of documentation as programs: their fenced blocks, in order, in one shell and an empty folder."""

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NOT_RUN = "# Not run by the tests: "
"""First line of a block that is shown only; the reason follows."""
NEEDS = "# Needs "
"""First line of a block that runs where a package is installed; its name follows, then a colon."""
SECONDS = 1800
"""That a page may take on a machine with other work, before it counts as hanging."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of `sh` or `python`."""

    line: int
    language: str
    text: str

    @property
    def why_not(self) -> str:
        """Why the block is not run here; empty where it is."""
        first = self.text.partition("\n")[0]
        if first.startswith(NOT_RUN):
            return first.removeprefix(NOT_RUN)
        if first.startswith(NEEDS):
            package = first.removeprefix(NEEDS).partition(":")[0]
            return "" if importlib.util.find_spec(package) else f"{package} is not installed"
        return ""


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that people are meant to type."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(line=text.count("\n", 0, found.start()) + 1, language=found[1], text=found[2])
        for found in re.finditer(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S)
    ]


def script(page: str, run: Sequence[Block]) -> str:
    """The blocks as one Bash program that stops at the first failure and names the command."""
    lines = ["set -Eeuo pipefail", """trap 'echo "FAILED (exit code $?): $BASH_COMMAND" >&2' ERR"""]
    for block in run:
        lines.append(f"echo '=== {page}:{block.line}'")
        typed = block.text if block.language == "sh" else f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK\n"
        lines.append(typed)
    return "\n".join(lines)


def run_blocks(page: Path, folder: Path, run: Sequence[Block]) -> str:
    """Runs blocks in a folder, as somebody would who types them into one shell.

    Returns:
      What was printed.

    Raises:
      AssertionError: a command failed; the message names it and ends with what was printed.
    """
    shell = subprocess.Popen(
        ["bash", "-c", script(page.name, run)], cwd=folder, env=environment(), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    ended = threading.Timer(SECONDS, os.killpg, (shell.pid, signal.SIGKILL))
    ended.start()
    printed, _ = shell.communicate()
    ended.cancel()
    assert shell.returncode == 0, f"{page.name} cannot be followed (exit code {shell.returncode}):\n{printed[-6000:]}"
    return printed


def environment() -> dict[str, str]:
    """This checkout and this interpreter, whatever is active; programs compiled quickly, and kept."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
        "COLUMNS": "120",
    }
