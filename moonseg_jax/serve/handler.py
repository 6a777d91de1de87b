"""HTTP: reads a request within its limits, replies with JSON or a stream of events."""

from __future__ import annotations

import hmac
import http.server
import itertools
import json
import time
import traceback
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import moonseg_jax
from moonseg_jax.serve.answer import answer_fields, event_fields
from moonseg_jax.serve.jobs import Job
from moonseg_jax.serve.problem import Problem
from moonseg_jax.streaming import Finished

if TYPE_CHECKING:
    from moonseg_jax.serve.server import SegmentServer

ENDPOINT, HEALTH = "/v1/segment", "/healthz"
MOST_DISCARDED = 256 * 2**20
"""Bytes of a refused body that are read all the same: a client sends all of it before it reads the reply."""
PIECE = 2**16
STREAM_HEAD = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Connection": "close"}
RETRY_LATER = (429, 503)
LEFT = 499
"""Counted where a client has not waited; it is never sent."""


class SegmentHandler(http.server.BaseHTTPRequestHandler):
    """One connection, which is one request."""

    protocol_version = "HTTP/1.1"
    # What has no version gets a reply with a head, too.
    default_request_version = "HTTP/1.0"
    server_version = f"moonseg/{moonseg_jax.__version__}"
    sys_version = ""
    server: SegmentServer
    _job: Job | None

    def setup(self) -> None:
        """Limits the time that a client may be silent."""
        super().setup()
        self.connection.settimeout(self.server.service.settings.read_seconds)

    def do_GET(self) -> None:
        """`/healthz`: 200 where requests are answered, else 503; needs no key."""
        self._begin()
        if self._path == HEALTH:
            state = self.server.service.state
            self._reply(200 if state == "ok" else 503, {"status": state})
        else:
            self._refuse(self._not_here())

    def do_POST(self) -> None:
        """`/v1/segment`."""
        self._begin()
        try:
            self._check_head()
            with self.server.service.admission.one_request():
                job = self._job = self.server.service.ask(self._body())
                self._stream(job) if job.request.stream else self._answer(job)
        except Problem as problem:
            self._refuse(problem)
        except OSError:
            self._log(LEFT, "the client has left")
        except Exception:
            self.server.service.say(traceback.format_exc())
            self._refuse(Problem(500, "The answer could not be written; the server's log says why"))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses, such as a head that is no HTTP, as JSON too."""
        self._begin()
        self._refuse(Problem(code, message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """Replies are logged by `_log`, other things not."""

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _begin(self) -> None:
        self.close_connection = True
        self._started, self._id, self._unread = time.monotonic(), uuid.uuid4().hex, 0
        self._job, self._is_streaming = None, False

    def _not_here(self) -> Problem:
        if self._path in (ENDPOINT, HEALTH):
            return Problem(405, f"{self.command} does not go with {self._path}")
        return Problem(404, f"There is no {self._path or '/'} here; this server has POST {ENDPOINT} and GET {HEALTH}")

    def _check_head(self) -> None:
        """Path, key, kind and size, before the body is read."""
        length = self.headers.get("Content-Length")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
            raise Problem(400, "Content-Length must be a number")
        self._unread = int(length or 0)
        if self._path != ENDPOINT:
            raise self._not_here()
        self._check_key()
        if self.headers.get_content_type() != "application/json":
            # A page in a browser cannot send this kind to another site without asking first.
            raise Problem(415, "Content-Type must be application/json")
        if length is None:
            raise Problem(411, "Content-Length is missing")
        limit = self.server.service.settings.max_bytes
        if self._unread > limit:
            raise Problem(
                413, f"The request has {self._unread} bytes, the limit is {limit:.0f}; shrink the image first"
            )

    def _check_key(self) -> None:
        key = self.server.service.settings.key
        if key is None:
            return
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        given = self.headers.get("X-Moondream-Auth") or bearer
        if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
            raise Problem(401, "The key is missing or wrong; send it as X-Moondream-Auth")

    def _body(self) -> bytes:
        pieces, deadline = [], self._started + self.server.service.settings.read_seconds
        try:
            while self._unread and time.monotonic() < deadline:
                piece = self._read_some()
                if not piece:
                    raise ConnectionResetError("the body ended early")
                pieces.append(piece)
        except TimeoutError:
            pass
        if self._unread:
            raise Problem(408, "The request was not sent in time")
        return b"".join(pieces)

    def _read_some(self) -> bytes:
        """What has come, at least a byte; none at the end."""
        piece: bytes = self.rfile.read1(min(self._unread, PIECE))  # type: ignore[attr-defined]
        self._unread -= len(piece)
        return piece

    def _answer(self, job: Job) -> None:
        for event in job.events():
            if isinstance(event, Finished):
                answer = answer_fields(event.segmentation, job.request, self._id)
        self._reply(200, answer)

    def _stream(self, job: Job) -> None:
        """Events as they come; the head waits for the first one, so that a problem before it has its own status."""
        events = event_fields(job.events(), job.request, self._id)
        first = next(events)
        self._is_streaming = True
        self.send_response(200)
        for name, value in STREAM_HEAD.items():
            self.send_header(name, value)
        self.end_headers()
        status = 200
        try:
            for event in itertools.chain([first], events):
                self._send_event(event)
        except Problem as problem:
            status = problem.status
            self._send_event({"type": "error", "error": problem.message, "completed": True})
        self._log(status, "streamed")

    def _send_event(self, fields: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(fields)}\n\n".encode())
        self.wfile.flush()

    def _refuse(self, problem: Problem) -> None:
        if self._is_streaming:
            self._log(problem.status, problem.message)
            return
        try:
            self._discard_body()
            self._reply(problem.status, {"error": problem.message})
        except OSError:
            self._log(LEFT, "the client has left")

    def _discard_body(self) -> None:
        """Without this the connection would be reset under the client's hands, and the reply lost."""
        deadline, most = self._started + self.server.service.settings.read_seconds, self._unread - MOST_DISCARDED
        try:
            while self._unread > max(0, most) and time.monotonic() < deadline and self._read_some():
                pass
        except TimeoutError:
            return

    def _reply(self, status: int, fields: dict[str, Any]) -> None:
        content = json.dumps(fields).encode()
        head = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
        if status in RETRY_LATER:
            head["Retry-After"] = "1"
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self._log(status, fields.get("error", ""))

    def _log(self, status: int, remark: str) -> None:
        self.server.service.admission.count(status)
        if getattr(self, "path", HEALTH) == HEALTH:
            return
        seconds = time.monotonic() - self._started
        together = f", {self._job.batch} together" if self._job is not None and self._job.batch > 1 else ""
        told = f"{self._id[:8]} {self.command} {self.path} {status}, {seconds:.2f} s{together}"
        self.server.service.say(f"{told}: {remark}" if remark else told)
