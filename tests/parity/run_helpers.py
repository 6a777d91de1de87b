"""Runs our code on the cases around the model: `python tests/parity/run_helpers.py FIXTURE_DIR OUT`.

FIXTURE_DIR holds `helpers.json`, `inputs.npz` and `helper_tokenizer.json`. OUT.json gets what our code makes of the
cases of `helpers.json`, in the same structure, and OUT.npz the arrays of `expected.npz` under their names. Not
there: crops by pyvips (`crops*/vips`) and top-p sampling (`topp`).
"""

import argparse
import json
import pathlib

import helpers_images
import helpers_masks
import helpers_text
import jax
import numpy as np
from helpers_fixture import Arrays, Records, load_helpers


def run_helpers(folder: pathlib.Path) -> tuple[Records, Arrays]:
    """All cases: what goes to OUT.json and to OUT.npz."""
    fixture = load_helpers(folder)
    records: Records = helpers_images.tilings(fixture)
    arrays: Arrays = helpers_images.resizing(fixture) | helpers_images.activations(fixture)
    for group in (helpers_images.crops, helpers_images.stitching, helpers_masks.renderings):
        more_records, more_arrays = group(fixture)
        records |= more_records
        arrays |= more_arrays
    for texts in (helpers_text.path_texts, helpers_text.numbers, helpers_text.chunks, helpers_text.answers):
        records |= texts(fixture)
    records |= helpers_masks.rectangles(fixture)
    records |= helpers_masks.tracings(fixture)
    return records, arrays | helpers_masks.masks(fixture)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixture", type=pathlib.Path, help="folder with helpers.json and inputs.npz")
    parser.add_argument("out", type=pathlib.Path, help="written as .json and as .npz, whichever of them is named")
    arguments = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    records, arrays = run_helpers(arguments.fixture)
    texts, numbers = arguments.out.with_suffix(".json"), arguments.out.with_suffix(".npz")
    texts.write_text(json.dumps(records, indent=1) + "\n")
    np.savez(numbers, **arrays)  # type: ignore[arg-type]
    print(f"{texts}: {len(records)} groups; {numbers}: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
