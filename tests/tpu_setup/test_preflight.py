"""The check before a long job passes where all is well, and names what is not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKS = ("devices", "versions", "collectives", "files", "shared", "memory", "clock")


def start(devices: int, *words: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, str(ROOT / "tpu_setup" / "preflight.py"), "--mib", "1", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_hosts_pass_together(tmp_path):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    shared = [
        "--distributed",
        "--coordinator",
        f"localhost:{port}",
        "--processes",
        2,
        "--devices",
        4,
        "--run",
        tmp_path,
    ]
    hosts = [start(2, *shared, "--process", host) for host in range(2)]
    try:
        printed = [host.communicate(timeout=100)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0]
    lines = [line for line in printed[0].splitlines() if line.startswith("host ")]
    assert [line.split(": ")[1:3] for line in lines] == [[check, "ok"] for check in CHECKS]
    assert "4 of cpu on 2 hosts, [2, 2] each" in lines[0]
    assert "host 1" not in printed[1]
    assert list(tmp_path.iterdir()) == []


def test_every_failure_has_its_line_and_the_code_is_1(tmp_path):
    (tmp_path / "file").write_text("")
    host = start(
        2, "--devices", 8, "--run", tmp_path / "file", "--least-bandwidth", 1e9, "--least-memory", 1e9,
        "--most-skew", -1,
    )  # fmt: skip
    printed, _ = host.communicate(timeout=100)
    assert host.returncode == 1
    failed = [line.split(": ")[1] for line in printed.splitlines() if ": FAILED: " in line]
    assert failed == [check for check in CHECKS if check != "versions"]
    assert "--devices says 8" in printed
