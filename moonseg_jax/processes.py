"""Several processes that work together: how they find each other, wait, agree, and end together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.errors import UserError
from moonseg_jax.sharding import NO_MESH

AUTO = "auto"
LONGEST_WAIT_MS = 7 * 24 * 3600 * 1000
COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Variables of the environment that tell a process of the others; `moonseg launch` sets them."""
DIGEST_BYTES = 32

Result = TypeVar("Result")
Team = tuple[int, ...]
"""Numbers of processes that do something together while the others do something else, in ascending order."""


def join_processes(described: str) -> None:
    """Makes this process one of several; only before the first use of a device.

    Args:
      described: `auto` where JAX finds the others by itself (TPU, Slurm, MPI, Kubernetes), else HOST:PORT/COUNT/INDEX
        with the address of process 0.

    Raises:
      UserError: another form, or the others cannot be found.
    """
    try:
        if described == AUTO:
            jax.distributed.initialize()
        else:
            address, count, index = _parts(described)
            jax.distributed.initialize(address, count, index)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed {described}: {str(error).splitlines()[0]}; say auto on TPU, Slurm, MPI or Kubernetes, else "
            "HOST:PORT/COUNT/INDEX with the address of process 0"
        ) from error


def described_by_environment() -> str | None:
    """What `join_processes` is to be told by the environment; None where it names no other processes.

    Raises:
      UserError: one of the three variables is set without another.
    """
    values = {name: os.environ.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    if values[COUNT] is None and values[INDEX] is None:
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        given = " and ".join(name for name in values if name not in missing)
        raise UserError(f"the environment sets {given}, but not {' and '.join(missing)}: set all three, or none")
    return "/".join(str(value) for value in values.values())


def _parts(described: str) -> tuple[str, int, int]:
    address, *numbers = described.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise ValueError("not an address, a number of processes and a smaller number from 0 on")
    return address, int(numbers[0]), int(numbers[1])


def wait_for_all(name: str, team: Team | None = None) -> None:
    """Returns when every process (of a team) has come here; no device takes part, so that one may wait for hours."""
    if jax.process_count() > 1:
        # Orbax takes a second to import, and most evaluations are of one process.
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn(processes=set(team) if team else None)(key=name, timeout_ms=LONGEST_WAIT_MS)


def alone() -> bool:
    """Whether this is the only process; wakes no device where it never joined others."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def largest_of_all(number: int) -> int:
    """The largest of the processes' numbers, the same on every one of them; all must ask."""
    if alone():
        return number
    return int(np.max(multihost_utils.process_allgather(np.array([number], np.int32))))


def gathered_from(team: Team, own: np.ndarray) -> np.ndarray:
    """Every member's array, [members, ...], on every member; all members must call it, and nobody else."""
    if team == (jax.process_index(),):
        return own[None]
    devices: Sequence[jax.Device] = jax.devices()
    firsts = [next(device for device in devices if device.process_index == member) for member in team]
    mesh = Mesh(np.array(firsts), ("members",))
    stacked = jax.make_array_from_process_local_data(NamedSharding(mesh, P("members")), own[None])
    # Whatever mesh the caller works on.
    with jax.set_mesh(NO_MESH):
        everywhere = jax.jit(lambda rows: rows, out_shardings=NamedSharding(mesh, P()))(stacked)
    return np.asarray(everywhere.addressable_data(0))


def text_of_first(own: str) -> str:
    """The text of process 0, on every process; all must call it."""
    return own if alone() else _texts_of_all(own)[0]


def succeed_together(act: Callable[[], Result]) -> Result:
    """What `act` returns; where it fails on one process, all fail, instead of waiting for the one. All must call it.

    Raises:
      UserError: of this process; or of another one, which is named.
    """
    if alone():
        return act()
    result, own = None, None
    try:
        result = act()
    except UserError as error:
        own = error
    reasons = _texts_of_all(str(own) if own else "")
    if own is not None:
        raise own
    for process, reason in enumerate(reasons):
        if reason:
            raise UserError(f"process {process}: {reason}")
    return result  # type: ignore[return-value]


def require_same(texts: Mapping[str, str], explain: Callable[[str, str, str], str]) -> None:
    """Refuses processes that were not started alike: their digests are compared, and texts only where they differ.

    Args:
      texts: what must be the same on every process, by what one calls it.
      explain: (name, text of process 0, text of another) → how the two differ.

    Raises:
      UserError: on every process the same: a text differs; names it, the process and the difference.
    """
    if alone():
        return
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts.values())
    of_all = np.asarray(multihost_utils.process_allgather(np.frombuffer(digests, np.uint8)))
    of_all = of_all.reshape(jax.process_count(), len(texts), DIGEST_BYTES)
    for number, (name, text) in enumerate(texts.items()):
        others = np.flatnonzero((of_all[:, number] != of_all[0, number]).any(axis=1))
        if len(others):
            every = _texts_of_all(text)
            other = int(others[0])
            raise UserError(
                f"the processes were not started alike: {name} of process {other} is not that of process 0: "
                f"{explain(name, every[0], every[other])}; give all the same command, file and packages"
            )


def _texts_of_all(own: str) -> list[str]:
    """Every process's text, in their order."""
    encoded = np.frombuffer(own.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array([len(encoded)], np.int32))).reshape(-1)
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(encoded)] = encoded
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]
