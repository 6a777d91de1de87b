"""The report on a tokenizer's path alphabet."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from moonseg_jax.config import moondream3, tiny
from moonseg_jax.paths.alphabet import AlphabetReport, alphabet_report
from moonseg_jax.paths.vocabulary import Vocabulary, progressions


def report_of(name: str, step: int = 1) -> AlphabetReport:
    paths = dataclasses.replace(tiny().paths, tokenizer=name, coordinate_step=step)
    return alphabet_report(Vocabulary.from_config(paths))


@pytest.mark.filterwarnings("ignore:tokenizer")
def test_report_names_what_is_there_and_what_is_missing(tmp_path):
    reserved = {f"<{index}>": index for index in range(21)} | {"Q": 7, "-": 8, "12": 9}
    words = ["M", "L", "Z", "z", "--", "0", "240", "480", "720", "960", "100", "961", "5000", "1.5", "007"]
    tokens = {piece: token for piece, token in reserved.items() if piece not in ("<7>", "<8>", "<9>")}
    tokens |= {piece: 21 + index for index, piece in enumerate(words)}
    tokens |= {" 480": 90, "L ": 91, " -": 92, "- ": 93}
    Tokenizer(models.WordLevel(tokens, unk_token="<20>")).save(str(tmp_path / "tokenizer.json"))
    report = report_of(str(tmp_path / "tokenizer.json"))
    assert report.commands == {"M": (21,), "L": (22, 91), "Z": (23,), "z": (24,)}
    assert report.minus == (92, 93)
    assert report.integers == (0, 100, 240, 480, 720, 960)
    assert report.integer_ids[480] == (28, 90) and report.integer_ids[5000] == (33,)
    assert (len(report.missing), report.finest_step, report.largest_gap) == (955, 240, 240)
    assert report.reserved == {7: "Q", 8: "-", 9: "12"}
    text = report.text()
    assert "missing      955: 1–99, 101–239, 241–479, 481–719, 721–959\n" in text
    assert "no token for C Q S T" in text and "above 960    2 integers: 961, 5000\n" in text
    assert "L: 22 is written, 91 read too; -: 92 is written, 93 read too; 480: 28 is written, 90 read too" in text
    assert "9 is '12', never path text" in text
    assert json.loads(json.dumps(report.to_json()))["finest_step"] == 240


def test_report_looks_at_every_integer_whatever_the_step():
    report = report_of("embedded:tiny", step=30)
    assert report.integers == tuple(range(0, 961, 30)) and len(report.missing) == 928 and report.finest_step == 30
    assert "integers     33 of 961 up to 960: 0–960 by 30\n" in report.text()


@pytest.mark.skipif("MOONSEG_FIXTURES" not in os.environ, reason="MOONSEG_FIXTURES is not set")
def test_an_official_style_tokenizer_has_every_integer():
    file = Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / "helpers" / "helper_tokenizer.json"
    report = alphabet_report(Vocabulary.from_config(dataclasses.replace(moondream3().paths, tokenizer=str(file))))
    assert report.integers == tuple(range(961)) and report.missing == () and report.finest_step == 1
    assert report.commands["M"] == (21, 22) and report.integer_ids[480] == (526, 1019)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((), []),
        ((7,), ["7"]),
        ((7, 8), ["7", "8"]),
        ((0, 1, 2, 3, 9, 12, 15, 16), ["0–3", "9–15 by 3", "16"]),
        ((1, 5, 6, 7), ["1", "5–7"]),
    ],
)
def test_progressions_are_written_short(numbers, words):
    assert progressions(numbers) == words
