"""The tests of this folder that need more devices than one, in a process that has eight."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def test_roles_and_weights_on_eight_devices():
    files = [str(FOLDER / name) for name in ("test_roles.py", "test_travelling_weights.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *files], capture_output=True, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}, timeout=600, cwd=FOLDER,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
