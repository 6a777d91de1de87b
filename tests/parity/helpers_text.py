"""Path text, numbers, streaming chunks and answers with our code."""

from typing import Any

from helpers_fixture import HelpersFixture, Records

from moonseg_jax.paths.engine.answer import answer_box, segment_answer
from moonseg_jax.paths.engine.completion_text import CompletionTextError, group_pieces, next_chunk, scaled_words
from moonseg_jax.paths.svg import format_number
from moonseg_jax.paths.vocabulary import Vocabulary


def path_texts(fixture: HelpersFixture) -> Records:
    """Tokens read as path text, step by step."""
    return {"svg": [_path_text(case["token_ids"], fixture.vocabulary) for case in fixture.recorded["svg"]]}


def numbers(fixture: HelpersFixture) -> Records:
    """Numbers as they are written."""
    return {"format_number": [[value, format_number(value)] for value, _ in fixture.recorded["format_number"]]}


def chunks(fixture: HelpersFixture) -> Records:
    """The chunks in which the first path of the fixture is streamed."""
    words = _path_text(fixture.recorded["svg"][0]["token_ids"], fixture.vocabulary)["scaled"]
    found: list[list[Any]] = []
    start = 0
    while True:
        end, text = next_chunk(words, start)
        if not text:
            return {"chunks": found}
        found.append([start, end, text])
        start = end


def answers(fixture: HelpersFixture) -> Records:
    """The answer to a stream of decoded values, and boxes of answers."""
    recorded = fixture.recorded["finalize"]
    values: dict[str, list[Any]] = {"CoordToken": [], "SizeToken": [], "TextToken": []}
    for kind, step in zip(recorded["kinds"], recorded["stream"]):
        values[kind].append(tuple(step))
    texts = [token for (token,) in values["TextToken"]]
    phrase = recorded["output"]["segments"][0]["object"]
    coordinates = [value for (value,) in values["CoordToken"]]
    answer = segment_answer(phrase, texts, coordinates, values["SizeToken"], fixture.vocabulary).to_json()
    return {
        "finalize": {
            "stream": recorded["stream"],
            "kinds": recorded["kinds"],
            "output": {"segments": [answer]},
            "text": answer["svg_path"] or answer["text"],
        },
        "build_bbox": [
            {
                "coords": case["coords"],
                "sizes": case["sizes"],
                "out": named_corners(answer_box(case["coords"], [tuple(size) for size in case["sizes"]])),
            }
            for case in fixture.recorded["build_bbox"]
        ],
    }


def named_corners(box: tuple[float, ...] | None) -> dict[str, float] | None:
    """A box as the engine writes it."""
    return None if box is None else dict(zip(("x_min", "y_min", "x_max", "y_max"), box))


def _path_text(token_ids: list[int], vocabulary: Vocabulary) -> dict[str, Any]:
    pieces = vocabulary.pieces(token_ids)
    nothing = dict.fromkeys(("parsed", "scaled", "path"))
    try:
        grouped = group_pieces(pieces)
    except CompletionTextError as error:
        return {"token_ids": token_ids, "decoded": pieces, **nothing, "error": f"ValueError: {error.engine_message}"}
    words = scaled_words(grouped)
    return {
        "token_ids": token_ids,
        "decoded": pieces,
        "parsed": [item if isinstance(item, str) else list(item) for item in grouped],
        "scaled": words,
        "path": " ".join(words),
        "error": None,
    }
