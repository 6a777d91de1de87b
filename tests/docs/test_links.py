"""Links between pages lead somewhere: to files that are there, and to headings in them."""

import re
from pathlib import Path

import pytest
from pages import ROOT

PATTERNS = ("*.md", "docs/**/*.md", "*/README.md", "experiments/*.md", "moonseg_jax/assets/*/README.md")
PAGES = sorted({page for pattern in PATTERNS for page in ROOT.glob(pattern)})


def anchors(page: Path) -> set[str]:
    """What headings are called in addresses, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", one)).lower().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []
