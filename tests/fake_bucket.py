"""A small Google Cloud Storage on this machine, for the clients that a run uses: gcsfs, Google's own, and TensorStore.

Objects live in memory, under the rules of the real one: an object appears whole or not at all, folders are prefixes
of names, nothing is appended to or renamed.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from google_crc32c import Checksum

OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)$")
LISTING = re.compile(r"/storage/v1/b/([^/]+)/o$")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)$")
UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o$")
MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)$")
TIME = "2026-01-01T00:00:00.000Z"


@dataclasses.dataclass(frozen=True)
class Stored:
    content: bytes
    generation: int


class FakeBuckets:
    """The server, as a context manager: `address` while it runs, `objects` by (bucket, name)."""

    def __init__(self, *buckets: str):
        self.buckets, self.objects = set(buckets), dict[tuple[str, str], Stored]()
        self.written: list[str] = []
        """Names in the order in which they were written."""
        self.refuse: Callable[[str, str], int | None] = lambda method, name: None
        """(method, object's name) → status to answer with instead of serving."""
        self.lock, self._generation, self.uploads = threading.RLock(), 0, list[tuple[str, str, bytearray]]()

    def __enter__(self) -> FakeBuckets:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"state": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # Clients that were killed, or have read enough.
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What makes the real clients of a process talk to this server, without credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.address, "TENSORSTORE_GCS_HTTP_URL": self.address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "GOOGLE_CLOUD_PROJECT": "test", "NO_GCE_CHECK": "true",
            # Which asks over gRPC what kind of bucket it is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }  # fmt: skip

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Of a bucket's objects, sorted."""
        with self.lock:
            return sorted(name for where, name in self.objects if where == bucket and name.startswith(prefix))

    def write(self, bucket: str, name: str, content: bytes) -> Stored:
        """An object, whole, at once."""
        with self.lock:
            self._generation += 1
            self.objects[bucket, name] = Stored(content, self._generation)
            self.written.append(name)
            return self.objects[bucket, name]


class _Handler(BaseHTTPRequestHandler):
    state: FakeBuckets
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._asked()
        if found := OBJECT.search(path):
            self._read(found[1], unquote(found[2]), query)
        elif found := LISTING.search(path):
            self._list(found[1], query)
        elif (found := BUCKET.search(path)) and found[1] in self.state.buckets:
            self._answer(200, {"kind": "storage#bucket", "name": found[1], "location": "HERE"})
        else:
            self._answer(404, _error(404, "no such bucket"))

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self._body()
        if path.startswith("/batch"):
            self._batch(body)
        elif found := MOVE.search(path):
            self._move(*map(unquote, found.groups()))
        elif found := UPLOAD.search(path):
            if found[1] not in self.state.buckets:
                self._answer(404, _error(404, "no such bucket"))
            elif "upload_id" in query:
                self._continue(query["upload_id"], body)
            else:
                self._upload(found[1], query, body)
        else:
            self._answer(501, _error(501, f"not built: {path}"))

    do_PUT = do_POST

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        self._answer(*self._delete(*map(unquote, OBJECT.search(path).groups())))

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: Any = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _refused(self, method: str, name: str) -> bool:
        if (status := self.state.refuse(method, name)) is not None:
            self._answer(status, _error(status, "refused"))
        return status is not None

    def _read(self, bucket: str, name: str, query: dict[str, str]) -> None:
        if self._refused("GET", name):
            return
        with self.state.lock:
            stored = self.state.objects.get((bucket, name))
        if stored is None:
            self._answer(404, _error(404, f"No such object: {bucket}/{name}"))
        elif query.get("ifGenerationNotMatch") == str(stored.generation):
            self._answer(304)
        elif query.get("alt") != "media":
            self._answer(200, _metadata(bucket, name, stored))
        else:
            data, length = stored.content, len(stored.content)
            asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
            start, end = 0, length
            if asked:
                start, end = int(asked[1]), min(int(asked[2]) + 1, length) if asked[2] else length
                if start >= length:
                    return self._answer(416, _error(416, "out of range"))
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{length}"} if asked else {}
            self._answer(206 if asked else 200, data[start:end], **headers, **_generation(stored))

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.state.buckets:
            return self._answer(404, _error(404, "The specified bucket does not exist."))
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        if self._refused("LIST", prefix):
            return
        names = self.state.names(bucket, prefix)
        deeper = [name for name in names if delimiter and delimiter in name[len(prefix) :]]
        prefixes = {prefix + name[len(prefix) :].split(delimiter)[0] + delimiter for name in deeper}
        items = [_metadata(bucket, name, self.state.objects[bucket, name]) for name in names if name not in deeper]
        count, start = int(query.get("maxResults", 1000)), int(query.get("pageToken", 0))
        page = {"kind": "storage#objects", "items": items[start : start + count], "prefixes": sorted(prefixes)}
        more = {"nextPageToken": str(start + count)} if start + count < len(items) else {}
        self._answer(200, page | more)

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        name = query.get("name", "")
        if query["uploadType"] == "resumable":
            name = name or json.loads(body)["name"]
            with self.state.lock:
                number = len(self.state.uploads)
                self.state.uploads.append((bucket, name, bytearray()))
            where = f"{self.state.address}/resumable/upload/storage/v1/b/{quote(bucket)}/o?upload_id={number}"
            return self._answer(200, {}, Location=where)
        if query["uploadType"] == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            about, content = (
                re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in body.split(b"--" + boundary)[1:3]
            )
            end = b"\r\n" if b"\r\n" in about else b"\n"
            name, body = json.loads(about)["name"], content.removesuffix(end)
        self._finish(bucket, name, query, body)

    def _continue(self, number: str, body: bytes) -> None:
        bucket, name, so_far = self.state.uploads[int(number)]
        so_far += body
        if self.headers["Content-Range"].endswith("/*"):
            return self._answer(308, Range=f"bytes=0-{len(so_far) - 1}")
        self._finish(bucket, name, {}, bytes(so_far))

    def _finish(self, bucket: str, name: str, query: dict[str, str], content: bytes) -> None:
        if self._refused("PUT", name):
            return
        with self.state.lock:
            before = self.state.objects.get((bucket, name))
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and wanted != str(before.generation if before else 0):
                return self._answer(412, _error(412, "conditionNotMet"))
            stored = self.state.write(bucket, name, content)
        self._answer(200, _metadata(bucket, name, stored), **_generation(stored))

    def _move(self, bucket: str, name: str, target: str) -> None:
        if self._refused("PUT", target):
            return
        with self.state.lock:
            moved = self.state.write(bucket, target, self.state.objects.pop((bucket, name)).content)
        self._answer(200, _metadata(bucket, target, moved))

    def _delete(self, bucket: str, name: str) -> tuple[int, Any]:
        if (status := self.state.refuse("DELETE", name)) is not None:
            return status, _error(status, "refused")
        with self.state.lock:
            found = self.state.objects.pop((bucket, name), None)
        return (204, b"") if found else (404, _error(404, f"No such object: {name}"))

    def _batch(self, body: bytes) -> None:
        parts = []
        for bucket, name in re.findall(r"DELETE \S*/b/([^/\s]+)/o/([^/?\s]+)", body.decode()):
            status, content = self._delete(bucket, unquote(name))
            told = json.dumps(content) if status >= 400 else ""
            parts.append(f"\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} \r\n\r\n{told}\r\n--")
        text = "--limit" + "limit".join(parts) + "limit--"
        self._answer(200, text.encode(), **{"Content-Type": "multipart/mixed; boundary=limit"})


def _generation(stored: Stored) -> dict[str, str]:
    return {"x-goog-generation": str(stored.generation), "x-goog-stored-content-length": str(len(stored.content))}


def _metadata(bucket: str, name: str, stored: Stored) -> dict[str, Any]:
    return {
        "kind": "storage#object", "id": f"{bucket}/{name}/{stored.generation}", "name": name, "bucket": bucket,
        "size": str(len(stored.content)), "generation": str(stored.generation), "metageneration": "1",
        "timeCreated": TIME, "updated": TIME,
        "md5Hash": base64.b64encode(hashlib.md5(stored.content).digest()).decode(),
        "crc32c": base64.b64encode(Checksum(stored.content).digest()).decode(),
    }  # fmt: skip


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "errors": [{"message": message, "reason": str(code)}]}}
