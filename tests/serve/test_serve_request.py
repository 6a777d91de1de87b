"""What a body of /v1/segment may hold, and what is said of one that is wrong."""

import base64
import io
import json

import numpy as np
import pytest
from decompression_bomb import BOMB
from gated_segmenter import body, data_uri
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.serve.problem import Problem
from moonseg_jax.serve.request import parse_request
from moonseg_jax.serve.settings import ServeSettings


def parsed(fields):
    return parse_request(json.dumps(fields).encode(), max_pixels=10_000)


def uri_of(image, kind, **how):
    written = io.BytesIO()
    image.save(written, kind, **how)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(written.getvalue()).decode()


def test_a_plain_request():
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    request = parsed({"image_url": uri_of(Image.fromarray(pixels), "PNG"), "object": "  the cat "})
    np.testing.assert_array_equal(request.image, pixels)
    assert (request.phrase, request.references, request.stream, request.ignored) == ("the cat", (), False, ())
    assert not request.goes_alone


def test_the_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert parsed(body(image_url=uri_of(Image.new("RGB", (6, 4)), "JPEG", exif=exif))).image.shape == (6, 4, 3)


@pytest.mark.parametrize("name", ["spatial_refs", "spatial_references"])
def test_references_under_either_name_and_streams_go_alone(name):
    request = parsed(body(**{name: [[0.5, 1], [0.1, 0.2, 0.3, 0.4]]}))
    assert request.references == ((0.5, 1.0), (0.1, 0.2, 0.3, 0.4)) and request.goes_alone
    assert parsed(body(**{name: []})).goes_alone is False
    assert parsed(body(stream=True)).goes_alone


def test_what_has_no_effect_is_named():
    request = parsed(body(model="m", settings={"temperature": 0.5, "top_p": 0.9, "max_objects": 3}, stream=None))
    assert request.ignored == ("model", "settings.max_objects", "settings.temperature", "settings.top_p")
    assert parsed(body(settings={"temperature": 0, "max_tokens": None})).ignored == ()


ANIMATION = uri_of(
    Image.new("L", (3, 3)), "GIF", save_all=True, append_images=[Image.new("L", (3, 3), 200)]
)  # fmt: skip
WRONG = {
    "no JSON": (b"{", 400, "must be JSON"),
    "not UTF-8": (b'{"object": "\xff"}', 400, "must be JSON"),
    "deeply nested": (b"[" * 100_000, 400, "must be JSON"),
    "a list": ([], 400, "JSON object"),
    "no phrase": ({"image_url": data_uri()}, 400, "'object'"),
    "a blank phrase": (body("  "), 400, "'object'"),
    "a phrase of another type": (body(3), 400, "'object'"),
    "stream of another type": (body(stream="yes"), 400, "'stream'"),
    "references of another type": (body(spatial_refs=[1, 2]), 400, "'spatial_refs' must be a list"),
    "references of text": (body(spatial_refs=[["a", "b"]]), 400, "'spatial_refs' must be a list"),
    "a reference outside": (body(spatial_refs=[[0.5, 1.5]]), 400, "inside the image"),
    "a reference of NaN": (body(spatial_refs=[[0.5, float("nan")]]), 400, "'spatial_refs'"),
    "references twice": (body(spatial_refs=[], spatial_references=[]), 400, "the same"),
    "settings of another type": (body(settings=[]), 400, "'settings'"),
    "a negative temperature": (body(settings={"temperature": -1}), 400, "'settings.temperature'"),
    "top_p of two": (body(settings={"top_p": 2}), 400, "from 0 to 1"),
    "no image": ({"object": "cat"}, 400, "'image_url' must be a string"),
    "an address": (body(image_url="http://127.0.0.1/a,b"), 400, "nothing is fetched"),
    "a file": (body(image_url="/etc/passwd"), 400, "nothing is fetched"),
    "no base64": (body(image_url="data:image/png;base64,*"), 400, "not base64"),
    "no picture": (body(image_url="data:image/png;base64,AAAA"), 400, "no image"),
    "half a picture": (body(image_url=data_uri(90, 90)[:80]), 400, "image_url"),
    "an animation": (body(image_url=ANIMATION), 400, "animation"),
    "a decompression bomb": (
        body(image_url="data:image/png;base64," + base64.b64encode(BOMB).decode()),
        413,
        "far more pixels than the limit of 10000",
    ),
    "too many pixels": (body(image_url=data_uri(101, 100)), 413, "101x100 pixels, the limit is 10000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_refused_with_the_field_named(name):
    content, status, said = WRONG[name]
    with pytest.raises(Problem) as problem:
        parse_request(content if isinstance(content, bytes) else json.dumps(content).encode(), max_pixels=10_000)
    assert problem.value.status == status and said in problem.value.message


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"port": 70_000}, "--port"), ({"queue": 0}, "--queue"), ({"max_bytes": 0}, "--max-mb"), ({"key": "é"}, "key")],
    ids=["port", "queue", "bytes", "key"],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        ServeSettings(**settings)


def test_only_an_address_for_others_without_a_key_is_open():
    assert ServeSettings(host="0.0.0.0").is_open
    assert not ServeSettings().is_open and not ServeSettings(host="0.0.0.0", key="k").is_open
