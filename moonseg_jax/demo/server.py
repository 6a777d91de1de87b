"""The page's life: it is served to this machine's browsers, and leaves no file behind."""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from moonseg_jax.demo.shared_model import SharedModel
from moonseg_jax.errors import UserError
from moonseg_jax.images import ImageLimits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Set before Gradio is imported: it tells nobody that it runs."""
FOLDER_VARIABLE = "GRADIO_TEMP_DIR"


def require_gradio() -> None:
    """Refuses to go on without the library.

    Raises:
      UserError: it is not installed; says how to.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("moonseg demo needs Gradio, which is not installed: pip install 'moonseg-jax[demo]'")


class DemoServer:
    """Serves the page in threads of its own from entering to leaving; then uploads and downloads are deleted."""

    def __init__(self, model: SharedModel, *, host: str = "127.0.0.1", port: int = 0):
        """Nothing is served yet.

        Args:
          model: answers all visitors.
          host: to listen on.
          port: 0 takes a free one.
        """
        self._model, self._host, self._port = model, host, port
        self._page: Any = None

    def __enter__(self) -> DemoServer:
        """Begins to serve.

        Raises:
          UserError: Gradio is not installed, the port is taken, or the host is not one of this machine.
        """
        require_gradio()
        self._port = _bindable(self._host, self._port)
        self._folder = tempfile.TemporaryDirectory(prefix="moonseg-demo-", ignore_cleanup_errors=True)
        os.environ.update(QUIET | {FOLDER_VARIABLE: self._folder.name})
        from moonseg_jax.demo.page import DRAG_BOX, STYLE, page, theme

        self._page = page(self._model, Path(self._folder.name))
        self._page.queue(max_size=16, api_open=False)
        self._page.launch(
            server_name=self._host, server_port=self._port, prevent_thread_lock=True, quiet=True, share=False,
            ssr_mode=False, pwa=False, footer_links=[], show_error=False, theme=theme(),
            css=STYLE, js=DRAG_BOX.read_text(encoding="utf-8"),
            max_file_size=ImageLimits().max_bytes, enable_monitoring=False,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._page.close(verbose=False)
        self._folder.cleanup()
        os.environ.pop(FOLDER_VARIABLE, None)

    @property
    def url(self) -> str:
        """What a browser opens."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}/"


def _bindable(host: str, port: int) -> int:
    """The port, or a free one for 0, tried beforehand: Gradio says little of why it cannot listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror or error}); --port names another") from error
