"""The platform that programs are traced for: this machine's, or that of machines one plans for."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED: contextvars.ContextVar[str | None] = contextvars.ContextVar("planned platform", default=None)


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: what the program being traced will run on."""
    return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Programs that are traced inside take the forms that are fast on another platform than this machine's."""
    token = _PLANNED.set(name)
    try:
        yield
    finally:
        _PLANNED.reset(token)
