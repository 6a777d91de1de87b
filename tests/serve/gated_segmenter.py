"""A segmenter that answers at once, or when it is let: for everything but the answers."""

import base64
import contextlib
import io
import json
import threading
import types
import urllib.error
import urllib.request

import numpy as np
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.segmentation import Segmentation
from moonseg_jax.serve.server import SegmentServer
from moonseg_jax.serve.service import Service
from moonseg_jax.serve.settings import ServeSettings
from moonseg_jax.status import NOT_ASKED
from moonseg_jax.streaming import BoxDrawn, Finished, PathPiece

BOX, PATH = (0.25, 0.25, 0.75, 0.75), "M 0 0 L 1 0 L 1 1 Z"


class GatedSegmenter:
    """Waits at an open or closed gate; fails where the phrase says so; remembers what it was asked."""

    batch = 3

    def __init__(self):
        self.calls, self.gate = [], threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        config = types.SimpleNamespace(vision=types.SimpleNamespace(crop=8))
        self.policy = types.SimpleNamespace(config=config, vocabulary=types.SimpleNamespace(prompt=self.prompt))

    def prompt(self, phrase, references):
        if phrase == "unsayable":
            raise UserError("the vocabulary cannot say 'unsayable'")

    def segment(self, image, phrase, references=None, stream=False):
        images = image if isinstance(image, list) else [image]
        phrases = phrase if isinstance(phrase, list) else [phrase] * len(images)
        self.calls.append((*phrases, *(["stream"] if stream else []), *(references or ())))
        if stream:
            return self.stream(image, phrase)
        self.entered.release()
        self.gate.wait(20)
        if "broken" in phrases:
            raise RuntimeError("out of luck")
        if "deadly" in phrases:
            raise SystemExit
        found = [answer(*pair) for pair in zip(images, phrases, strict=True)]
        return found if isinstance(image, list) else found[0]

    def stream(self, image, phrase):
        yield BoxDrawn(number=0, box=BOX, drawn_box=(0.5, 0.5, 0.5, 0.5))
        self.entered.release()
        self.gate.wait(20)
        if phrase == "broken":
            raise RuntimeError("out of luck")
        yield PathPiece(number=0, text="M 0 0 L 1 0")
        yield PathPiece(number=0, text="L 1 1 Z")
        yield Finished(number=0, segmentation=answer(image, phrase))


def answer(image, phrase):
    mask = np.zeros(image.shape[:2], bool)
    return Segmentation(
        image=image, phrase=phrase, path=PATH, drawn_box=(0.5, 0.5, 0.5, 0.5), box=BOX, polygons=(),
        coarse_mask=mask, mask=mask, status=NOT_ASKED, score=float("nan"),
    )  # fmt: skip


@contextlib.contextmanager
def serving(segmenter, **settings):
    """A running server on a free port; `server.said` holds its log, and `server.stop` ends it."""
    said = []
    service = Service(segmenter, ServeSettings(port=0, **settings), warm_up=False, say=said.append)
    with SegmentServer(service) as server:
        server.said, server.stop, server.left = said, threading.Event(), []
        running = threading.Thread(target=lambda: server.left.append(server.serve_until(server.stop)))
        running.start()
        service._worker.is_ready.wait(20)
        try:
            yield server
        finally:
            if isinstance(segmenter, GatedSegmenter):
                segmenter.gate.set()
            server.stop.set()
            running.join(30)
            assert not running.is_alive()


def data_uri(width=4, height=4):
    written = io.BytesIO()
    Image.new("RGB", (width, height)).save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def body(phrase="the red star", **fields):
    return {"image_url": data_uri(), "object": phrase, **fields}


def ask(server, fields=None, *, path="/segment", headers=(), data=None):
    """(status, JSON or the events of a stream, headers)."""
    data = json.dumps(body() if fields is None else fields).encode() if data is None else data
    heads = {"Content-Type": "application/json", **dict(headers)}
    try:
        reply = urllib.request.urlopen(urllib.request.Request(server.url + path, data=data, headers=heads), timeout=20)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        content = reply.read().decode()
        if reply.headers["Content-Type"] == "text/event-stream":
            return reply.status, [json.loads(line[6:]) for line in content.split("\n\n") if line], reply.headers
        return reply.status, json.loads(content), reply.headers


class Asking:
    """A request in a thread of its own."""

    def __init__(self, *of, **named):
        self._found = []
        self._thread = threading.Thread(target=lambda: self._found.append(ask(*of, **named)))
        self._thread.start()

    def reply(self):
        self._thread.join(20)
        return self._found[0][:2]
