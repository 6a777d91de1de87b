"""Whoever follows a page of `docs/` from an empty folder gets to its end."""

import pytest
from pages import ROOT, blocks, run_blocks

USERS = ("masks-from-words", "sweep-rewards", "moondream-weights", "scale-rollouts")
"""Pages for the four kinds of users."""


@pytest.mark.slow
@pytest.mark.parametrize("name", USERS)
def test_every_command_of_the_page_works(name, tmp_path):
    page = ROOT / "docs" / f"{name}.md"
    found = blocks(page)
    run = [block for block in found if not block.why_not]
    assert len(run) >= 4, "the page holds commands to follow"
    print(run_blocks(page, tmp_path, run))
    missing = [block for block in found if block.why_not.endswith("is not installed")]
    if missing:
        pytest.skip("; ".join(f"all else works; line {block.line}: {block.why_not}" for block in missing))
