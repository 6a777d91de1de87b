"""Every command that the documentation tells people to type exists, with every option it is given."""

import re
import shlex
from pathlib import Path

import pytest

from moonseg_jax import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "*/README.md", "moonseg_jax/assets/*/README.md")
    for page in ROOT.glob(pattern) if page.name != "CHANGELOG.md" and ".venv" not in page.parts
)  # fmt: skip
GROUPS = ("data", "bench", "path", "rewards")
"""Commands whose first word names a group of commands."""
PLACEHOLDER = re.compile(r"[|…<]|\bNAME\b")
"""Of lines that show a form, and are not typed as they stand."""
RECIPE = ("--config", str(ROOT / "experiments" / "shapes_tiny.py"))
STAGES = ("sft", "rl", "refiner")


def commands(page: Path) -> list[list[str]]:
    """The words after `moonseg` of every line of a fenced block that begins with it."""
    found = []
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            typed = re.sub(r"moonseg launch .*? -- ", "", line)
            if typed.strip().startswith("moonseg ") and not PLACEHOLDER.search(typed):
                found.append(shlex.split(typed, comments=True)[1:])
    return found


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        raise SystemExit(cli.main([*words, "--help"]))
    assert end.value.code in (0, None), words
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_options_exist(page, capsys):
    known: dict[tuple[str, ...], str] = {}
    for words in commands(page):
        depth = 3 if words[:2] == ["data", "build"] else 2 if words[0] in GROUPS else 1
        command = tuple(words[:depth])
        if command not in known:
            known[command] = help_of(command, capsys)
            if command[0] in ("train", "sweep"):  # Settings of the config are options too.
                known[command] += "".join(help_of(("train", stage, *RECIPE), capsys) for stage in STAGES)
        for option in (word.partition("=")[0] for word in words if word.startswith("--") and word != "--"):
            assert option in known[command], f"{page.name}: moonseg {' '.join(words)}: there is no {option}"


def test_the_pages_are_found_and_hold_commands():
    assert {"README.md", "docs/scale-rollouts.md", "docs/moondream-weights.md", "experiments/README.md"} <= {
        str(page.relative_to(ROOT)) for page in PAGES
    }
    assert commands(ROOT / "README.md")
    assert len(commands(ROOT / "docs" / "scale-rollouts.md")) > 5
