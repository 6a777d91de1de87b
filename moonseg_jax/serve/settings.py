"""Where the server listens, whom it answers, and what a request may cost."""

from __future__ import annotations

import dataclasses
import math

from moonseg_jax.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server."""

    host: str = "127.0.0.1"
    port: int = 2020
    """0 takes a free one."""
    key: str | None = None
    """Asked of every request, but not of `/healthz`."""
    queue: int = 32
    """Most requests in hand: being read, waiting, or being answered. This bounds the memory they take."""
    max_bytes: float = 32 * 2**20
    """Largest body of a request."""
    max_pixels: float = 24e6
    """Largest image."""
    read_seconds: float = 10.0
    """Until the whole request must have been sent."""
    answer_seconds: float = 60.0
    """From then until the answer must be complete, waiting included."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port must be from 0 to 65535, got {self.port}")
        if self.key is not None and not (self.key.isascii() and self.key.strip() == self.key != ""):
            raise UserError("the key must be ASCII letters, digits and signs, without blanks around it")
        above_zero = {
            "--queue": self.queue, "--max-mb": self.max_bytes, "--max-megapixels": self.max_pixels,
            "--read-seconds": self.read_seconds, "--answer-seconds": self.answer_seconds,
        }  # fmt: skip
        for name, value in above_zero.items():
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be a number greater than 0, got {value}")

    @property
    def is_open(self) -> bool:
        """Whether anyone on the network may ask."""
        return self.host not in LOOPBACK and self.key is None
