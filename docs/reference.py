"""Builds the API reference, as HTML, of the modules that `docs/api.md` names.

python docs/reference.py build/docs
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

MAP = Path(__file__).parent / "api.md"


def modules() -> list[str]:
    """Names of modules, in the order of the map."""
    return re.findall(r"^\| `([\w.]+)` \|", MAP.read_text(encoding="utf-8"), re.M)


def build(out: Path) -> None:
    """Writes a page per module, an index, and what the search needs.

    Raises:
      UserWarning: as an error; a docstring or a signature that cannot be shown.
    """
    pdoc.render.configure(docformat="google", show_source=False, search=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The __init__ that Flax makes for a dataclass knows nothing of the names its annotations are made of.
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        pdoc.pdoc(*modules(), output_directory=out)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")
    build(folder)
    print(f"{len(modules())} modules; open {folder / 'index.html'}")
