"""A step of reinforcement learning in two processes is the step of one process on the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from mesh_steps import STEPS

from moonseg_jax.sharding import make_mesh

FOLDER = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_two_processes_take_the_step_of_one(tmp_path):
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [
                sys.executable, str(FOLDER / "mesh_steps.py"), str(tmp_path / f"process{index}"),
                "all-rl", "--process", port, "2", str(index),
            ],
            env=environment,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        expected = STEPS["rl"](make_mesh(jax.devices()[:1]))
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0]
    for index in range(2):
        found = dict(np.load(tmp_path / f"process{index}-all-rl.npz"))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
