"""How a training run is asked to stop: by Ctrl-C or SIGTERM, at the next place where nothing is lost.

Python's own handlers wait until the main thread is back from a compiled program, which may take minutes. A thread
beside it hears of the signal at once; once the time of grace is over, it saves by itself and ends the process, if
what there is to save is whole and nobody is changing it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = b"\nstopping after this step, or before its update, then saving%s\n"
ONCE_MORE = b"; Ctrl-C once more stops at once and saves nothing"
OVERDUE = b"\nthe time of grace is over, but the update in hand has taken the state: saving when it ends\n"
LOOK_AGAIN_SECONDS = 0.05


class Terminated(KeyboardInterrupt):
    """The run was stopped by SIGTERM, and has saved."""


class StopRequest:
    """Signals to stop, as a context manager around a run's steps."""

    def __init__(self, grace: float, *, quiet: bool = False):
        """Takes over no signal yet.

        Args:
          grace: seconds from SIGTERM on, after which what `may_save` offers is saved without the main thread.
          quiet: says nothing; for all processes but the first.
        """
        self._grace, self._quiet = grace, quiet
        self._number = 0
        self._offer: Callable[[], None] | None = None
        self._in_use, self._closed = threading.Lock(), threading.Event()

    @property
    def number(self) -> int:
        """The signal that asked to stop; 0 where none has."""
        return self._number

    def __enter__(self) -> StopRequest:
        """Takes over the signals."""
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._handlers = {number: signal.signal(number, self._ask) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="grace", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Gives the signals back."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._closed.set()
        self._told.close()
        self._thread.join()
        self._heard.close()

    @contextlib.contextmanager
    def may_save(self, save: Callable[[], None]) -> Iterator[None]:
        """While inside, an overdue stop may call `save` from another thread, after which the process ends.

        Args:
          save: saves a state that nothing inside changes, and closes what must be closed.
        """
        with self._in_use:
            self._offer = save
        try:
            yield
        finally:
            # Where saving has begun this waits for ever: the state may not change before the process ends.
            with self._in_use:
                self._offer = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._number and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self._number = not self._number, self._number or number
        if first and not self._quiet:
            # Written past Python's buffers: the signal may have come in the middle of a print.
            os.write(2, STOPPING % (ONCE_MORE if number == signal.SIGINT else b""))

    def _watch(self) -> None:
        """Waits for SIGTERM, then for the end of grace, then for something to save."""
        while True:
            heard = self._heard.recv(1)
            if not heard:
                return
            if heard[0] == signal.SIGTERM:
                break
        if self._closed.wait(self._grace):
            return
        told = False
        while not self._closed.is_set():
            with self._in_use:
                if self._offer is not None:
                    self._save_and_end(self._offer)
            if not told and not self._quiet:
                os.write(2, OVERDUE)
            told = True
            time.sleep(LOOK_AGAIN_SECONDS)

    def _save_and_end(self, save: Callable[[], None]) -> None:
        code = 0
        try:
            save()
        except BaseException as error:  # Whatever it is, it must be said, and the process must end.
            code = 2
            print(f"moonseg: error: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # The main thread is inside a compiled program, which nothing can interrupt.
        os._exit(code)
