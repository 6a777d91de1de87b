"""Several processes that judge one split together."""

from __future__ import annotations

import jax

from moonseg_jax.errors import UserError

AUTO = "auto"
LONGEST_WAIT_MS = 7 * 24 * 3600 * 1000


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


def _parts(described: str) -> tuple[str, int, int]:
    address, *numbers = described.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise ValueError("not an address, a number of processes and a smaller number from 0 on")
    return address, int(numbers[0]), int(numbers[1])


def wait_for_all(name: str) -> None:
    """Returns when every process has come here; no device takes part, so that one may wait for hours."""
    if jax.process_count() > 1:
        # Orbax takes a second to import, and most evaluations are of one process.
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=name, timeout_ms=LONGEST_WAIT_MS)
