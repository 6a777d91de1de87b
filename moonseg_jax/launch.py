"""Several processes on one machine: started together, told apart, and ended together when one dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import IO

from moonseg_jax.errors import UserError
from moonseg_jax.processes import COORDINATOR, COUNT, INDEX

CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
OURS = "moonseg"
LOOK_SECONDS = 0.05
OUTPUT_SECONDS = 2.0
"""How long to wait for the last words of a process that has ended; its own children may hold the pipe open."""
ASKED = (0, 130)
"""Codes of processes that ended because they were asked to."""


@dataclasses.dataclass(kw_only=True)
class Worker:
    """One of the processes."""

    index: int
    process: subprocess.Popen[bytes]
    readers: list[threading.Thread] = dataclasses.field(default_factory=list)
    last_error: str = ""
    """The last line with words that it wrote to standard error."""

    def send(self, number: int) -> None:
        """Signals it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def fate(self) -> str:
        """How it ended."""
        code = self.process.returncode
        if code < 0:
            return f"process {self.index} was killed by {signal.Signals(-code).name}"
        return f"process {self.index} exited with {code}" + (f": {self.last_error}" if self.last_error else "")

    def code(self) -> int:
        """Its exit code as a shell gives it."""
        code = self.process.returncode
        return code if code >= 0 else 128 - code


def launch(command: Sequence[str], *, processes: int, devices_per_process: int | None, grace: float) -> int:
    """Runs a command in several processes that find each other, and waits for all.

    Their output is passed on line by line behind `[0] `, `[1] `… When one fails, that and why is said, and the others
    are ended: SIGTERM, and SIGKILL after `grace` seconds, whatever they wait for. Ctrl-C and SIGTERM are passed on;
    after SIGTERM too the end comes within `grace`.

    Args:
      command: program and arguments; `moonseg` is the one of this installation.
      processes: how many.
      devices_per_process: devices of the CPU that each gets; None leaves that to JAX.
      grace: seconds between SIGTERM and SIGKILL.

    Returns:
      0 where all ended with 0; the code of the first that failed, 128 + signal where it was killed.

    Raises:
      UserError: the program cannot be started.
    """
    asked: list[int] = []
    workers: list[Worker] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for worker in workers:
            worker.send(number)

    with _handling(pass_on), _ending_all(workers):
        address = f"localhost:{_free_port()}"
        for index in range(processes):
            workers.append(_start(command, index, _environment(address, processes, index, devices_per_process)))
            if asked:
                workers[-1].send(asked[-1])
        return _wait(workers, asked, grace)


def _wait(workers: Sequence[Worker], asked: Sequence[int], grace: float) -> int:
    failed: Worker | None = None
    deadline = float("inf")
    while running := [worker for worker in workers if worker.process.poll() is None]:
        failed = failed or _first_failed(workers, asked)
        if failed is not None and deadline == float("inf"):
            _tell(failed, f"; ending the others within {grace:g} s" if running else "")
            for worker in running:
                worker.send(signal.SIGTERM)
            deadline = time.monotonic() + grace
        elif signal.SIGTERM in asked and deadline == float("inf"):
            deadline = time.monotonic() + grace
        if time.monotonic() > deadline:
            for worker in running:
                print(f"moonseg launch: process {worker.index} did not end in time: SIGKILL", file=sys.stderr)
                worker.send(signal.SIGKILL)
                worker.process.wait()
        time.sleep(LOOK_SECONDS)
    for worker in workers:
        _read_to_end(worker)
    if failed is None:
        failed = _first_failed(workers, asked)
        if failed is not None:
            _tell(failed, "")
    return failed.code() if failed is not None else max(worker.code() for worker in workers)


def _first_failed(workers: Sequence[Worker], asked: Sequence[int]) -> Worker | None:
    """Who ended badly; of several, who was killed, because the others may have failed for want of that one."""
    ended = [worker for worker in workers if worker.process.poll() is not None]
    bad = [worker for worker in ended if worker.process.returncode not in (ASKED if asked else (0,))]
    return min(bad, key=lambda worker: worker.process.returncode, default=None)


def _tell(worker: Worker, then: str) -> None:
    _read_to_end(worker)
    print(f"moonseg launch: {worker.fate()}{then}", file=sys.stderr, flush=True)


def _start(command: Sequence[str], index: int, environment: dict[str, str]) -> Worker:
    words = [sys.executable, "-m", "moonseg_jax.cli", *command[1:]] if command[0] == OURS else list(command)
    try:
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # So that Ctrl-C reaches it once, from here.
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    worker = Worker(index=index, process=process)
    assert process.stdout is not None and process.stderr is not None
    for stream, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        reader = threading.Thread(target=_pass_lines, args=(worker, stream, target), daemon=True)
        reader.start()
        worker.readers.append(reader)
    return worker


def _pass_lines(worker: Worker, stream: IO[bytes], target: IO[str]) -> None:
    for line in stream:
        text = line.decode(errors="replace").rstrip("\r\n")
        if target is sys.stderr and any(letter.isalnum() for letter in text):
            worker.last_error = text.strip()
        target.write(f"[{worker.index}] {text}\n")
        target.flush()


def _read_to_end(worker: Worker) -> None:
    for reader in worker.readers:
        reader.join(OUTPUT_SECONDS)


def _environment(address: str, processes: int, index: int, devices: int | None) -> dict[str, str]:
    environment = {**os.environ, COORDINATOR: address, COUNT: str(processes), INDEX: str(index)}
    # Lines are passed on as they come, not in blocks.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment if devices is None else environment | {CPU_DEVICES: str(devices)}


@contextlib.contextmanager
def _handling(handler: object) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


@contextlib.contextmanager
def _ending_all(workers: Sequence[Worker]) -> Iterator[None]:
    """Leaves no process behind, whatever goes wrong here."""
    try:
        yield
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.send(signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])
