"""The server's life: it listens, answers until it is told to stop, answers what is in hand, and ends."""

from __future__ import annotations

import contextlib
import errno
import http.server
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from moonseg_jax.errors import UserError
from moonseg_jax.serve.handler import SegmentHandler
from moonseg_jax.serve.service import Service

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SegmentServer(http.server.ThreadingHTTPServer):
    """A thread per connection; all ask one service."""

    daemon_threads = True
    # Connections that send nothing are not waited for: the service waits for requests.
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: Service):
        """Takes the port.

        Args:
          service: not started.

        Raises:
          UserError: the port is taken or the host is not one of this machine.
        """
        self.service = service
        host, port = service.settings.host, service.settings.port
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), SegmentHandler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            remedy = "it is taken, --port names another" if taken else f"{error.strerror or error}"
            raise UserError(f"cannot listen on {host}:{port}: {remedy}") from error

    @property
    def url(self) -> str:
        """What a client takes as its endpoint."""
        host, port = self.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else str(host)}:{port}/v1"

    def serve_until(self, stop: threading.Event) -> int:
        """Answers until `stop` is set or the model's thread dies, then what is in hand.

        Returns:
          Requests in hand that were not answered.

        Raises:
          RuntimeError: the model's thread has died.
        """
        self.service.start()
        accepting = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        accepting.start()
        try:
            while not stop.wait(0.2):
                if self.service.state == "failed":
                    raise RuntimeError("the model's thread has died; the log above says why")
        finally:
            left = self.service.stop()
            self.shutdown()
            accepting.join()
            self.server_close()
        return left

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke is nothing to tell; anything else goes the usual way."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second acts as ever. In the main thread only."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def first_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    for one in SIGNALS:
        signal.signal(one, first_signal)
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
