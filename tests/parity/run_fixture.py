"""Runs our model on a fixture of official outputs: `python tests/parity/run_fixture.py FIXTURE_DIR OUT.npz`.

A fixture is a folder with `config.json`, weights under their official names and `inputs.npz`; OUT.npz gets what our
model makes of the inputs, under the names and with the strides of the fixture's `expected.npz`.
"""

import argparse
import pathlib

import fixture_policy
import fixture_refiner
import jax
import numpy as np
from fixture_model import load_fixture


def run_fixture(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All outputs by name; products must be exact (`jax_default_matmul_precision` = highest)."""
    fixture = load_fixture(folder)
    outputs: dict[str, np.ndarray] = {}
    for case in ("vision0", "vision1"):
        outputs |= fixture_policy.vision(fixture, case)
    outputs |= fixture_policy.before_the_last_norm(fixture)
    image = outputs["vision0/projected"]
    outputs |= fixture_policy.text(fixture, image)
    outputs |= fixture_policy.decoding(fixture)
    outputs |= fixture_policy.spatial_references(fixture, image)
    outputs |= fixture_policy.region(fixture)
    outputs |= fixture_policy.quantised(fixture, image)
    outputs |= fixture_refiner.head(fixture)
    outputs |= fixture_refiner.pipeline(fixture)
    return outputs


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixture", type=pathlib.Path, help="folder with config.json, weights and inputs.npz")
    parser.add_argument("out", type=pathlib.Path, help="file to write, .npz")
    arguments = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    outputs = run_fixture(arguments.fixture)
    np.savez(arguments.out, **outputs)  # type: ignore[arg-type]
    print(f"{arguments.out}: {len(outputs)} outputs")


if __name__ == "__main__":
    main()
