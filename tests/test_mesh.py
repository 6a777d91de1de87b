"""A step is the same on one device and on eight."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from mesh_steps import STEPS

from moonseg_jax.errors import UserError
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.sharding import make_mesh

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
SPLIT = ("all-sft", "all-rl", "all-refiner", "fsdp-rl", "tensor-sft", "tensor-rl", "expert-rl", "expert-lora")
"""Meshes of eight devices and steps on them; a step of `rl` samples, scores and learns."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where the results lie, one file per stage and mesh."""
    out = tmp_path_factory.mktemp("mesh") / "step"
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(FOLDER / "mesh_steps.py"), str(out), *[f"one-{stage}" for stage in STEPS], *SPLIT],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
        check=True, timeout=1200,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("step", SPLIT)
def test_a_step_on_eight_devices_equals_the_step_on_one(step, results):
    stage = step.split("-")[1]
    one, eight = (dict(np.load(f"{results}-{name}.npz")) for name in (f"one-{stage}", step))
    assert one.keys() == eight.keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_mesh_needs_a_fitting_number_of_devices():
    with pytest.raises(UserError, match=r"mesh\.fsdp = 2 does not divide the 1 devices; products that do: 1$"):
        make_mesh(jax.devices()[:1], MeshConfig(fsdp=2))
    with pytest.raises(UserError, match=r"fsdp = 2 x mesh\.tensor = 3 .* 8 devices; products that do: 1, 2, 4, 8$"):
        MeshConfig(fsdp=2, tensor=3).sizes(8)
    with pytest.raises(UserError, match=r"16 devices, but there are 8: set mesh\.data to 2"):
        MeshConfig(data=4, fsdp=4).sizes(8)
