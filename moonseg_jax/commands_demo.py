"""The command `moonseg demo`: a page on this machine to try a model with."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from moonseg_jax.errors import UserError

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Open a page on this machine: a photo and a phrase in, the path as it is drawn, masks and files out.

    Needs Gradio: pip install 'moonseg-jax[demo]'. Nothing leaves the machine. Ctrl-C or SIGTERM ends it, and what was
    uploaded is deleted.
    """

    checkpoint: OptionalPath = None
    """Folder of policy weights, such as RUN/best; the shipped ones by default."""
    refiner: OptionalPath = None
    """Folder of refiner weights; by default the checkpoint's own, and the shipped ones with the shipped policy."""
    refine: bool = True
    """Refine masks; --no-refine needs no refiner weights."""
    host: str = "127.0.0.1"
    """Address to listen on. Whoever reaches it may use the page: there is no key."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 7860
    """Port; 0 takes a free one."""

    def run(self) -> None:
        """Shows the page until it is told to stop.

        Raises:
          UserError: Gradio is not installed, the port is taken, or the weights cannot be used.
        """
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port must be from 0 to 65535, got {self.port}")
        from moonseg_jax.demo.server import require_gradio

        require_gradio()
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.demo.server import LOOPBACK, DemoServer
        from moonseg_jax.demo.shared_model import SharedModel
        from moonseg_jax.predict import Segmenter
        from moonseg_jax.serve.server import stop_on_signals

        keep_compiled_programs()
        with stop_on_signals() as stop:
            segmenter = Segmenter.load(self.checkpoint, self.refiner, refine=self.refine, say=_say)
            with DemoServer(SharedModel(segmenter, *self._weights()), host=self.host, port=self.port) as server:
                if self.host not in LOOPBACK:
                    _say(f"anyone who reaches {self.host} may use the page: there is no key")
                print(f"open {server.url} in a browser, stop with Ctrl-C", flush=True)
                stop.wait()
        print("stopped")

    def _weights(self) -> tuple[str, str]:
        """Which weights the page names, and what it says of them."""
        if self.checkpoint is None:
            return "the checkpoint that comes with the package", (
                "It knows coloured shapes only: the examples below, no photos of anything else. It was not trained "
                "with clicks. `--checkpoint` names another."
            )
        return str(self.checkpoint), ""


def _say(text: str) -> None:
    print(f"moonseg: {text}", file=sys.stderr, flush=True)
