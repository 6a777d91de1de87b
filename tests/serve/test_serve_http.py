"""Batches, limits, errors and the end, against a segmenter that answers when it is let."""

import json
import signal
import socket
import threading
import time

import pytest
from gated_segmenter import BOX, PATH, Asking, GatedSegmenter, ask, body, data_uri, serving

from moonseg_jax.errors import UserError
from moonseg_jax.serve.server import SegmentServer, stop_on_signals
from moonseg_jax.serve.service import Service
from moonseg_jax.serve.settings import ServeSettings

REGION = dict(zip(("x_min", "y_min", "x_max", "y_max"), BOX))


@pytest.fixture
def segmenter():
    return GatedSegmenter()


def waiting(server, jobs):
    """Waits until so many jobs are in the queue."""
    deadline = time.monotonic() + 10
    while len(server.service._jobs._jobs) < jobs:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_answer_has_the_fields_of_the_api(segmenter):
    with serving(segmenter) as server:
        status, reply, headers = ask(server, body(spatial_refs=[[0.5, 0.25]], settings={"top_p": 0.5}))
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert len(reply.pop("request_id")) == 32
    assert reply == {
        "path": PATH, "bbox": REGION, "status": "unrefined: not asked for", "ignored": ["settings.top_p"]
    }  # fmt: skip
    assert segmenter.calls == [("the red star", (0.5, 0.25))]


def test_a_stream_has_the_events_of_the_api(segmenter):
    with serving(segmenter) as server:
        status, events, _ = ask(server, body(stream=True))
    assert status == 200 and [event["type"] for event in events] == ["bbox", "path_delta", "path_delta", "final"]
    assert events[0]["bbox"] == events[-1]["bbox"] == REGION
    assert "".join(event["chunk"] for event in events[1:3]) == events[-1]["path"] == PATH
    assert [event.get("completed") for event in events] == [None, False, False, True]


def test_requests_that_come_while_the_model_is_busy_are_answered_together(segmenter):
    segmenter.gate.clear()
    with serving(segmenter) as server:
        asking = []
        for number, kind in enumerate(["", "", "stream", "", "", ""]):
            asking.append(Asking(server, body(f"{number}", stream=bool(kind))))
            if number == 0:
                segmenter.entered.acquire()
            waiting(server, number)
        segmenter.gate.set()
        replies = [one.reply() for one in asking]
    assert segmenter.calls == [("0",), ("1", "3", "4"), ("2", "stream"), ("5",)]
    assert [status for status, _ in replies] == [200] * 6
    assert sum("3 together" in line for line in server.said) == 3


def test_one_that_fails_does_not_take_its_neighbours_along(segmenter):
    segmenter.gate.clear()
    with serving(segmenter) as server:
        first = Asking(server)
        segmenter.entered.acquire()
        good, bad = Asking(server, body("good")), Asking(server, body("broken"))
        waiting(server, 2)
        segmenter.gate.set()
        assert first.reply()[0] == good.reply()[0] == 200
        assert bad.reply() == (500, {"error": "Inference failed; the server's log says why"})
        assert "RuntimeError: out of luck" in "\n".join(server.said)
        assert ask(server)[0] == 200


def test_a_stream_that_fails_says_so_in_its_last_event(segmenter):
    with serving(segmenter) as server:
        _, events, _ = ask(server, body("broken", stream=True))
    assert [event["type"] for event in events] == ["bbox", "error"]
    assert "Inference failed" in events[-1]["error"]


def test_more_requests_than_the_limit_are_refused_at_once(segmenter):
    segmenter.gate.clear()
    with serving(segmenter, queue=2) as server:
        asking = [Asking(server)]
        segmenter.entered.acquire()
        asking.append(Asking(server))
        waiting(server, 1)
        # A body that does not fit the buffers of the connection: its reply must arrive all the same.
        status, reply, headers = ask(server, body(filler="x" * 8_000_000))
        assert status == 429 and "2 requests are in hand" in reply["error"] and headers["Retry-After"] == "1"
        segmenter.gate.set()
        assert [one.reply()[0] for one in asking] == [200, 200]
        assert ask(server)[0] == 200
    assert server.service.admission.summary() == "200: 3, 429: 1"


def test_an_answer_that_takes_too_long_is_not_waited_for_nor_computed(segmenter):
    segmenter.gate.clear()
    with serving(segmenter, answer_seconds=0.3) as server:
        late = [Asking(server, body("first"))]
        segmenter.entered.acquire()
        late.append(Asking(server, body("second")))
        assert [one.reply()[0] for one in late] == [504, 504]
        segmenter.gate.set()
        assert ask(server, body("next"))[0] == 200
    assert segmenter.calls == [("first",), ("next",)]


def test_a_stream_that_takes_too_long_ends_with_an_error(segmenter):
    segmenter.gate.clear()
    with serving(segmenter, answer_seconds=0.3) as server:
        _, events, _ = ask(server, body(stream=True))
    assert [event["type"] for event in events] == ["bbox", "error"] and "in time" in events[-1]["error"]


def test_a_key_is_asked_of_everything_but_health(segmenter):
    with serving(segmenter, key="secret") as server:
        for headers in ({}, {"X-Moondream-Auth": "secre"}, {"Authorization": "Bearer no"}):
            status, reply, _ = ask(server, headers=headers)
            assert status == 401 and "key" in reply["error"]
        for headers in ({"X-Moondream-Auth": "secret"}, {"Authorization": "Bearer secret"}):
            assert ask(server, headers=headers)[0] == 200
        assert "secret" not in "\n".join(server.said)
        assert raw(server, b"GET /healthz HTTP/1.1\r\n\r\n") == (200, {"status": "ok"})
    assert len(segmenter.calls) == 2


REFUSED = {
    "another kind": ({"headers": {"Content-Type": "text/plain"}}, 415, "application/json"),
    "another endpoint": ({"path": "/caption"}, 404, "/v1/segment"),
    "too large": ({"data": b"x" * 8_000_000}, 413, "8000000 bytes, the limit is 100000"),
    "a phrase that cannot be said": ({"fields": body("unsayable")}, 400, "cannot say"),
    "an image too large": ({"fields": body(image_url=data_uri(50, 50))}, 413, "50x50"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_json_and_reach_the_client(segmenter, name):
    asked, status, said = REFUSED[name]
    with serving(segmenter, max_bytes=100_000, max_pixels=2_000) as server:
        found, reply, _ = ask(server, **asked)
    assert found == status and list(reply) == ["error"] and said in reply["error"]
    assert segmenter.calls == []


def raw(server, sent, *, then=b""):
    """Status and JSON of the reply to bytes on a connection."""
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(sent)
        if then:
            time.sleep(0.05)
            connection.sendall(then)
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
    head, _, content = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


HEAD = b"POST /v1/segment HTTP/1.1\r\nContent-Type: application/json\r\n"
RAW = {
    "not HTTP": (b"hello\r\n\r\n", 400),
    "a head without end": (b"POST /v1/segment HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    "another method": (b"PUT /v1/segment HTTP/1.1\r\n\r\n", 501),
    "GET where POST belongs": (b"GET /v1/segment HTTP/1.1\r\n\r\n", 405),
    "no length": (HEAD + b"\r\n", 411),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "an endless length": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "a body that does not come": (HEAD + b"Content-Length: 10\r\n\r\n{", 408),
}


@pytest.mark.parametrize("name", RAW)
def test_broken_requests_get_an_answer_too(segmenter, name):
    sent, status = RAW[name]
    with serving(segmenter, read_seconds=0.3) as server:
        found, reply = raw(server, sent)
    assert found == status and reply["error"]


def test_a_body_in_pieces_is_put_together(segmenter):
    content = json.dumps(body()).encode()
    with serving(segmenter) as server:
        status, _ = raw(server, HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content[:20], then=content[20:])
    assert status == 200


def test_what_is_in_hand_is_answered_before_the_end(segmenter):
    segmenter.gate.clear()
    with serving(segmenter) as server:
        asking = [Asking(server)]
        segmenter.entered.acquire()
        asking += [Asking(server) for _ in range(4)]
        waiting(server, 4)
        silent = socket.create_connection(server.server_address[:2])
        server.stop.set()
        while server.service.state != "stopping":
            time.sleep(0.005)
        assert ask(server)[:2] == (503, {"error": "The server is stopping"})
        assert raw(server, b"GET /healthz HTTP/1.1\r\n\r\n") == (503, {"status": "stopping"})
        segmenter.gate.set()
        assert [one.reply()[0] for one in asking] == [200] * 5
    silent.close()
    assert server.left == [0]
    with pytest.raises(OSError):
        ask(server)


def test_a_model_that_dies_ends_the_server_and_all_are_told(segmenter):
    service = Service(segmenter, ServeSettings(port=0), warm_up=False)
    with SegmentServer(service) as server:
        ends = []

        def run():
            with pytest.raises(RuntimeError, match="model's thread has died"):
                server.serve_until(threading.Event())
            ends.append(True)

        running = threading.Thread(target=run)
        running.start()
        segmenter.gate.clear()
        asking = [Asking(server, body("deadly"))]
        segmenter.entered.acquire()
        asking.append(Asking(server))
        waiting(server, 1)
        segmenter.gate.set()
        running.join(20)
        assert [one.reply()[0] for one in asking] == [500, 500]
    assert ends == [True]


def test_a_taken_port_is_told(segmenter):
    with serving(segmenter) as server:
        port = server.server_address[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: it is taken"):
            SegmentServer(Service(segmenter, ServeSettings(port=port)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_the_first_signal_stops_and_the_second_acts_as_ever(number):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set() and signal.getsignal(number) is before
    assert signal.getsignal(number) is before
