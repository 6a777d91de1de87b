"""Path text of unconstrained completions, and answers."""

import pytest

from moonseg_jax.config import tiny
from moonseg_jax.paths.engine.answer import answer_box, segment_answer
from moonseg_jax.paths.engine.completion_text import CompletionTextError, group_pieces, next_chunk, scaled_words
from moonseg_jax.paths.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_config(tiny().paths)


def tokens(text: str) -> list[int]:
    return [VOCABULARY.tokenizer.token_to_id(word) for word in text.split()]


def test_pieces_group_into_commands_and_pairs():
    grouped = group_pieces("M - 12 480 L 40 - 7 1 z".split())
    assert grouped == ["M", (-12, 480), "L", (40, -7), "z"]
    assert scaled_words(grouped) == ["M", "-0.013", "0.5", "L", "0.042", "-0.007", "z"]


@pytest.mark.parametrize(
    ("text", "position", "engine_message"),
    [
        ("12 M", 0, "Unexpected SVG token '12'"),
        ("- 1 M", 0, "Unexpected SVG token '-'"),
        ("M 1 2 -", 3, "Unexpected SVG token '-'"),
        ("M 1 - - 5", 3, "invalid literal for int() with base 10: '-'"),
        ("M 1 - L 5", 3, "invalid literal for int() with base 10: 'L'"),
        ("m 0 0.5", 2, "invalid literal for int() with base 10: '0.5'"),
    ],
)
def test_broken_text_is_refused_at_its_piece_in_the_engines_words(text, position, engine_message):
    with pytest.raises(CompletionTextError, match=f"piece {position}: ") as caught:
        group_pieces(text.split())
    assert caught.value.engine_message == engine_message


def test_commands_are_streamed_once_they_have_their_numbers():
    words = "M 0 0.5 C 1 1 2 2 3 3 Z".split()
    sent = [next_chunk(words[:count], 0) for count in range(4)]
    assert sent == [(0, ""), (0, ""), (0, ""), (3, "M 0 0.5")]
    assert next_chunk(words[:9], 3) == (3, "")
    assert next_chunk(words, 3) == (10, "C 1 1 2 2 3 3")
    assert next_chunk(words, 10) == (11, "Z")
    assert next_chunk(words, 11) == (11, "")


def test_an_answer_has_the_path_the_box_and_what_was_clipped():
    answer = segment_answer("cat", tokens("M 0 0 960 0 960 480 Z"), [0.5, 0.25, 1.5], [(0.5, 1.25)], VOCABULARY)
    assert answer.coarse_path == "M 0 0 1 0 1 0.5 Z" and answer.parse_error is None
    assert answer.to_json() == {
        "object": "cat",
        "text": answer.text,
        "svg_path": "M 0 0 1 0 1 0.5 Z",
        "path_tokens": "M 0 0 960 0 960 480 Z".split(),
        "token_ids": tokens("M 0 0 960 0 960 480 Z"),
        "points": [{"x": 0.5, "y": 0.25}],
        "coarse_path": "M 0 0 1 0 1 0.5 Z",
        "bbox": {"x_min": 0.25, "y_min": 0.0, "x_max": 0.75, "y_max": 0.75},
        "coarse_bbox": {"x_min": 0.25, "y_min": 0.0, "x_max": 0.75, "y_max": 0.75},
        "sizes": [{"width": 0.5, "height": 1.0}],
    }


def test_a_broken_answer_keeps_its_box_and_says_why():
    answer = segment_answer("cat", tokens("960 M"), [0.5], [(0.5, 0.5)], VOCABULARY)
    assert answer.to_json() == {
        "object": "cat",
        "text": answer.text,
        "svg_path": "",
        "path_tokens": ["960", "M"],
        "token_ids": tokens("960 M"),
        "points": [],
        "coarse_path": "",
        "parse_error": "Unexpected SVG token '960'",
        "sizes": [{"width": 0.5, "height": 0.5}],
    }
    assert answer_box([0.5, 0.5], []) is None
