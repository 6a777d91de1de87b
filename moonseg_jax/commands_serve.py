"""The command `moonseg serve`: answers over HTTP, as Moondream's API gives them."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
KEY_VARIABLE = "MOONSEG_KEY"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Answer over HTTP with the request and response of Moondream's /v1/segment.

    The official client works against it: moondream.vl(endpoint="http://127.0.0.1:2020/v1"). GET /healthz tells whether
    the model is ready. Ctrl-C or SIGTERM: what is in hand is answered, then it ends.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them, with a key."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 2020
    """Port; 0 takes a free one."""
    key: str | None = None
    """Key that requests must bring; by default the variable MOONSEG_KEY, which other users of the machine cannot see,
    and no key without it."""
    checkpoint: OptionalPath = None
    """Folder of policy weights, such as RUN/best; the shipped ones by default."""
    refiner: OptionalPath = None
    """Folder of refiner weights; by default the checkpoint's own, and the shipped ones with the shipped policy."""
    refine: bool = True
    """Refine masks; --no-refine needs no refiner weights, and answers with the path as drawn."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Times that the refiner improves its own mask; the model's number by default, 0 for no refinement."""
    guard: bool = False
    """Keep the coarse mask where it overlaps the refined one as well as the refiner expects the truth to."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """Most requests answered together: those that came while the model was busy."""
    queue: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Most requests in hand, further ones are refused with 429."""
    max_mb: Annotated[float, tyro.conf.arg(metavar="MB")] = 32.0
    """Largest request, in MiB; larger ones are refused with 413."""
    max_megapixels: Annotated[float, tyro.conf.arg(metavar="N")] = 24.0
    """Largest image; larger ones are refused with 413."""
    read_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 10.0
    """Until a request must have been sent; else 408."""
    answer_seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 60.0
    """From then until its answer must be there, waiting included; else 504."""

    def run(self) -> None:
        """Serves until it is told to stop.

        Raises:
          UserError: An option is out of range, the port is taken, or the weights cannot be used.
        """
        from moonseg_jax.serve.settings import ServeSettings

        key = (os.environ.get(KEY_VARIABLE) or None) if self.key is None else self.key
        settings = ServeSettings(
            host=self.host, port=self.port, key=key, queue=self.queue,
            max_bytes=self.max_mb * 2**20, max_pixels=self.max_megapixels * 1e6,
            read_seconds=self.read_seconds, answer_seconds=self.answer_seconds,
        )  # fmt: skip
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.predict import Segmenter
        from moonseg_jax.serve.server import SegmentServer, stop_on_signals
        from moonseg_jax.serve.service import Service

        keep_compiled_programs()
        segmenter = Segmenter.load(
            self.checkpoint, self.refiner, refine=self.refine, iterations=self.iterations, guard=self.guard,
            batch=self.batch, say=_say,
        )  # fmt: skip
        service = Service(segmenter, settings, say=_say)
        with stop_on_signals() as stop, SegmentServer(service) as server:
            if settings.is_open:
                _say(f"anyone who reaches {self.host} may ask: set a key with {KEY_VARIABLE}")
            if self.checkpoint is None:
                _say("answers come from the shipped checkpoint, which knows coloured shapes only; --checkpoint")
            print(f"listening on {server.url}, stop with Ctrl-C", flush=True)
            left = server.serve_until(stop)
        print(f"stopped; replies by status: {service.admission.summary()}" + (f"; {left} unanswered" if left else ""))


def _say(text: str) -> None:
    print(f"moonseg: {text}", file=sys.stderr, flush=True)
