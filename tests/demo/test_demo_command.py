"""`moonseg demo`, from its options to the signal that ends it."""

import importlib.util
import os
import signal
import threading
import urllib.request
from pathlib import Path

import pytest
from painting_segmenter import PaintingSegmenter

from moonseg_jax.commands_demo import Demo
from moonseg_jax.demo import server as demo_server
from moonseg_jax.errors import UserError
from moonseg_jax.predict import Segmenter


@pytest.fixture
def segmenter(monkeypatch):
    painting = PaintingSegmenter()
    monkeypatch.setattr(Segmenter, "load", lambda *of, **settings: painting)
    return painting


def test_without_gradio_it_says_what_to_install(segmenter, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Gradio.*pip install 'moonseg-jax\[demo\]'$"):
        Demo(port=0).run()


def test_a_port_that_does_not_exist_is_told():
    with pytest.raises(UserError, match="--port must be from 0 to 65535, got 70000"):
        Demo(port=70000).run()


def test_it_names_its_weights():
    assert "coloured shapes only" in Demo()._weights()[1]
    assert Demo(checkpoint=Path("runs/mine/best"))._weights() == ("runs/mine/best", "")


def test_it_serves_this_machine_ends_on_sigterm_and_leaves_nothing(segmenter, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    seen = []
    began = demo_server.DemoServer.__enter__

    def asked(server):
        running = began(server)

        def client():
            try:
                seen.append((server.url, urllib.request.urlopen(server.url, timeout=20).status))
                seen.append(os.environ[demo_server.FOLDER_VARIABLE])
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=client).start()
        return running

    monkeypatch.setattr(demo_server.DemoServer, "__enter__", asked)
    Demo(port=0).run()
    (url, status), folder = seen
    assert url.startswith("http://127.0.0.1:") and status == 200
    assert not Path(folder).exists() and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    said = capsys.readouterr().out
    assert f"open {url} in a browser" in said and said.endswith("stopped\n")


@pytest.mark.parametrize("host", ["203.0.113.1", "127.0.0.1"], ids=["another machine", "taken"])
def test_where_it_cannot_listen_is_told(segmenter, host):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=f"cannot listen on {host}:.*--port names another"):
            Demo(host=host, port=taken.getsockname()[1]).run()
