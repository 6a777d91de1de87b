"""`moonseg serve`, from its options to the signal that ends it."""

import os
import signal
import threading

import pytest
from gated_segmenter import GatedSegmenter, ask, body

from moonseg_jax.commands_serve import Serve
from moonseg_jax.errors import UserError
from moonseg_jax.predict import Segmenter
from moonseg_jax.serve.server import SegmentServer


@pytest.fixture
def segmenter(monkeypatch):
    gated = GatedSegmenter()
    monkeypatch.setattr(Segmenter, "load", lambda *of, **settings: gated)
    return gated


def test_it_warms_up_answers_and_ends_on_sigterm(segmenter, monkeypatch, capsys):
    serve_until, replies = SegmentServer.serve_until, []

    def client(server):
        try:
            replies.append(ask(server)[0])
            replies.append(ask(server, body(), headers={"X-Moondream-Auth": "secret"})[0])
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(server, stop):
        threading.Thread(target=client, args=(server,)).start()
        return serve_until(server, stop)

    monkeypatch.setattr(SegmentServer, "serve_until", asked)
    monkeypatch.setenv("MOONSEG_KEY", "secret")
    Serve(port=0).run()
    said = capsys.readouterr()
    assert replies == [401, 200]
    one, batch = ("the red star",), ("the red star",) * 3
    assert segmenter.calls == [one, batch, one, batch, one], "small and large images, alone and in batches; the request"
    assert said.out.startswith("listening on http://127.0.0.1:") and "replies by status: 200: 1, 401: 1" in said.out
    assert "secret" not in said.out + said.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": ""}, "the key must be"),
        ({"max_mb": float("nan")}, "--max-mb must be a number greater than 0"),
        ({"answer_seconds": float("inf")}, "--answer-seconds"),
        ({"host": "203.0.113.1"}, "cannot listen on 203.0.113.1"),
    ],
    ids=["no key", "no number", "endless", "another machine"],
)
def test_bad_options_are_told(segmenter, options, said):
    with pytest.raises(UserError, match=said):
        Serve(**{"port": 0, **options}).run()
