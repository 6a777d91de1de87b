"""The official Python client against a real, tiny model: the answers of a plain call, whole and streamed."""

import concurrent.futures
import io
import urllib.error

import jax
import pytest
from gated_segmenter import serving
from micro_segmenter import micro_segmenter
from PIL import Image
from tiny_models import scenes

moondream = pytest.importorskip("moondream", reason="the official client is not installed: pip install moondream")

IMAGES = [Image.fromarray(scene.examples[0].image) for scene in scenes(4)]
PHRASES = ["the red star", "the ring", "the small blue square", "the red star"]


@pytest.fixture(scope="module")
def server():
    jax.config.update("jax_disable_most_optimizations", True)
    with serving(micro_segmenter(), key="secret", queue=8, answer_seconds=300) as server:
        yield server
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def client(server):
    return moondream.vl(api_key="secret", endpoint=server.url)


def expected(image, phrase, references=None):
    """What the segmenter says of the JPEG that the client sends."""
    written = io.BytesIO()
    image.save(written, "JPEG", quality=95)
    answer = micro_segmenter().segment(written.getvalue(), phrase, references)
    return answer, answer.to_moondream()


def test_a_call(client):
    answer, fields = expected(IMAGES[0], PHRASES[0])
    assert client.segment(IMAGES[0], PHRASES[0]) == fields
    assert answer.status == "refined" and fields["path"].startswith("M")


def test_a_call_with_references(client):
    references = [[0.25, 0.5], [0.1, 0.1, 0.6, 0.9]]
    _, fields = expected(IMAGES[0], PHRASES[0], references)
    assert client.segment(IMAGES[0], PHRASES[0], spatial_refs=references) == fields
    assert fields != expected(IMAGES[0], PHRASES[0])[1]


def test_a_stream(client):
    answer, fields = expected(IMAGES[1], PHRASES[1])
    first, *pieces, last = client.segment(IMAGES[1], PHRASES[1], stream=True, settings={"temperature": 0.5})
    assert first == {"bbox": dict(zip(("x_min", "y_min", "x_max", "y_max"), answer.box))}
    assert len(pieces) > 1 and "".join(piece["chunk"] for piece in pieces) == answer.path
    assert last == {**fields, "completed": True}


def test_clients_at_once_get_their_own_answers(client, server):
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        found = list(clients.map(client.segment, IMAGES * 2, PHRASES * 2))
    for image, phrase, fields in zip(IMAGES, PHRASES, found, strict=False):
        assert fields == expected(image, phrase)[1]
    assert found[:4] == found[4:] and len({str(fields) for fields in found}) > 2
    assert any("together" in line for line in server.said)


@pytest.mark.parametrize(
    ("key", "phrase", "status"), [("wrong", PHRASES[0], 401), ("secret", "  ", 400)], ids=["key", "phrase"]
)
def test_errors_reach_the_caller(server, key, phrase, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        moondream.vl(api_key=key, endpoint=server.url).segment(IMAGES[0], phrase)
    assert error.value.code == status
    error.value.close()
