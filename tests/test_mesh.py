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
from moonseg_jax.sharding import make_mesh

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where the results lie, one file per stage and mesh."""
    out = tmp_path_factory.mktemp("mesh") / "step"
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(FOLDER / "mesh_steps.py"), str(out), "--devices", "1", "8"],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
        check=True, timeout=600,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("stage", STEPS)
def test_a_step_on_eight_devices_equals_the_step_on_one(stage, results):
    one, eight = (dict(np.load(f"{results}-{stage}-{devices}.npz")) for devices in (1, 8))
    assert one.keys() == eight.keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_mesh_needs_a_fitting_number_of_devices():
    with pytest.raises(UserError, match=r"mesh\.fsdp = 2 does not divide the 1 devices"):
        make_mesh(jax.devices()[:1], fsdp=2)
