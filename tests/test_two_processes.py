"""A step of reinforcement learning in two processes is the step of one process on the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from mesh_steps import STEPS

from moonseg_jax.checkpoint_files import write_list
from moonseg_jax.sharding import make_mesh

FOLDER = Path(__file__).parent
pytestmark = pytest.mark.slow  # it compiles programs in several processes


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


GATHER = """
import sys
import jax, numpy as np
port, index, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, index)
from moonseg_jax.shares import own_share, together
own = {"a": np.arange(3 * index) + 10 * index, "b": np.ones((3 * index, 2), np.float32) * index}
state = together(own, (0, 1))
again = own_share(state, index, 2)
assert all((again[name] == own[name]).all() and again[name].dtype == own[name].dtype for name in own)
np.savez(out, counts=state["counts"], **state["rows"])
"""


def test_two_processes_save_the_rows_of_both(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    port = str(free_port())
    processes = [
        subprocess.Popen([sys.executable, "-c", GATHER, port, str(k), str(tmp_path / f"{k}.npz")], env=environment)
        for k in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for index in range(2):
        found = np.load(tmp_path / f"{index}.npz")
        assert found["counts"].tolist() == [0, 3] and found["a"].tolist() == [10, 11, 12]
        assert found["b"].tolist() == [[1.0, 1.0]] * 3


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


CHECKING = """
import sys
from pathlib import Path
import jax
port, index, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, index)
from moonseg_jax.checkpoint_files import Damaged, require_whole
for name in ("whole", "changed-0", "changed-1"):
    try:
        require_whole(folder / name)
        print(name)
    except Damaged as damage:
        print(damage)
"""


def test_a_changed_file_that_one_of_two_processes_reads_is_named_by_both(tmp_path):
    for name in ("whole", "changed-0", "changed-1"):
        (tmp_path / name).mkdir()
        for file in ("0", "1"):
            (tmp_path / name / file).write_bytes(b"as written")
        write_list(tmp_path / name)
    for file in ("0", "1"):
        (tmp_path / f"changed-{file}" / file).write_bytes(b"as wrjtten")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHECKING, port, str(index), str(tmp_path)], env=environment, text=True,
            stdout=subprocess.PIPE,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        lines = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    finally:
        for process in processes:
            process.kill()
    changed = [
        f"{tmp_path}/changed-{file} is damaged: {file} is not what was written (its CRC-32 differs)"
        for file in ("0", "1")
    ]
    told = [[line for line in of_one if not line.startswith("[Gloo]")] for of_one in lines]
    assert told == [["whole", *changed]] * 2
