"""The launcher: who died and why is said, the others end in bounded time, signals are passed on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from moonseg_jax import cli

ROOT = Path(__file__).parent.parent
SECONDS = 20
"""No launch of these tests may last longer; what is launched would sleep for a minute."""

SLEEPER = "print('ready', flush=True); [time.sleep(.05) for _ in range(1200)]"
"""In short naps: a signal between Python's last look and a long sleep would be heard at its end."""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def launcher(program: str, *options: str) -> subprocess.Popen[str]:
    source = "import os, signal, sys, time\nme = int(os.environ['JAX_PROCESS_ID'])\n" + textwrap.dedent(program)
    return subprocess.Popen(
        [sys.executable, "-m", "moonseg_jax.cli", "launch", *options, "--", sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def launch(program: str, *options: str) -> tuple[int, list[str], list[str]]:
    """Exit code, lines of standard output, lines of standard error."""
    process = launcher(program, *options)
    try:
        out, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, out.splitlines(), errors.splitlines()


def test_every_process_knows_its_number_and_the_others_and_its_lines_are_marked():
    program = """
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_NUM_CPU_DEVICES")
        print(me, *(os.environ[name] for name in names))
        print("said on standard error", file=sys.stderr)
    """
    code, out, errors = launch(program, "--processes", "3", "--devices-per-process", "4")
    assert code == 0
    assert sorted(line.split()[:2] for line in out) == [[f"[{k}]", str(k)] for k in range(3)]
    addresses, counts, devices = zip(*(line.split()[2:] for line in out), strict=True)
    assert len(set(addresses)) == 1 and addresses[0].startswith("localhost:")
    assert set(counts) == {"3"} and set(devices) == {"4"}
    assert sorted(errors) == [f"[{k}] said on standard error" for k in range(3)]


def test_the_last_line_of_the_process_that_failed_is_told_and_its_code_given():
    failing = """
        if me == 1:
            print("first line", file=sys.stderr)
            sys.exit("moonseg: error: no such file")
        time.sleep(60)
    """
    code, _, errors = launch(failing, "--processes", "3", "--grace", "5")
    assert code == 1
    told = [line for line in errors if line.startswith("moonseg launch")]
    assert told == [
        "moonseg launch: process 1 exited with 1: moonseg: error: no such file; ending the others within 5 s"
    ]


def test_a_killed_process_is_named_with_its_signal_and_stubborn_others_are_killed_after_the_grace():
    since = time.monotonic()
    program = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif me == 0: time.sleep(60)\n"
    code, _, errors = launch(
        program + "time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)", "--processes", "2", "--grace", "1"
    )
    assert code == 128 + signal.SIGKILL
    assert time.monotonic() - since < SECONDS
    assert errors == [
        "moonseg launch: process 1 was killed by SIGKILL; ending the others within 1 s",
        "moonseg launch: process 0 did not end in time: SIGKILL",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_reach_every_process_once_and_their_end_is_the_launchers(number, code):
    process = launcher(
        f"""
        def end(*_):
            print("asked", flush=True)
            sys.exit({code})
        signal.signal({int(number)}, end)
        {SLEEPER}
        """,
        "--processes", "2",
    )  # fmt: skip
    lines = [process.stdout.readline() for _ in range(2)]
    assert sorted(lines) == ["[0] ready\n", "[1] ready\n"]
    process.send_signal(number)
    out, errors = process.communicate(timeout=SECONDS)
    assert sorted(out.splitlines()) == ["[0] asked", "[1] asked"]
    assert (process.returncode, errors) == (code, "")


def test_sigterm_ends_in_time_also_those_that_do_not_listen():
    process = launcher(STUBBORN, "--processes", "1", "--grace", "0.5")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert "process 0 did not end in time: SIGKILL" in errors
    assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--processes", "2"], "no command: name it behind --"),
        (["--processes", "0", "--", "true"], "--processes must be at least 1, got 0"),
        (["--processes", "1", "--grace=-1", "--", "true"], "--grace must not be negative"),
        (["--processes", "1", "--", "no-such-program"], "no-such-program cannot be started: No such file"),
    ],
    ids=["command", "processes", "grace", "program"],
)
def test_bad_input_is_one_line(capsys, words, told):
    assert cli.main(["launch", *words]) == 2
    assert told in capsys.readouterr().err


def test_moonseg_is_the_one_of_this_installation(capfd):
    assert cli.main(["launch", "--processes", "1", "--", "moonseg", "--version"]) == 0
    assert capfd.readouterr().out.startswith("[0] moonseg-jax ")
