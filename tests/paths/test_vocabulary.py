"""The path alphabet of tokenizers, and prompts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_pipelines.lexicon import WORDS
from moonseg_jax.config import moondream3, small, tiny
from moonseg_jax.errors import UserError
from moonseg_jax.paths.build_tokenizer import build_tokenizer
from moonseg_jax.paths.vocabulary import Vocabulary

PRESETS = {"tiny": tiny(), "small": small()}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_config(tiny().paths)


@pytest.mark.parametrize("name", PRESETS)
def test_embedded_tokenizer_is_what_the_builder_makes_of_the_lexicon(name):
    preset = PRESETS[name]
    built = build_tokenizer(WORDS, step=preset.paths.coordinate_step, limit=preset.text.vocabulary)
    assert Vocabulary.from_config(preset.paths).tokenizer.to_str() == built.to_str()
    assert built.get_vocab_size() <= preset.text.vocabulary


@pytest.mark.parametrize("name", PRESETS)
def test_every_word_of_the_lexicon_is_one_token(name):
    vocabulary = Vocabulary.from_config(PRESETS[name].paths)
    for word in WORDS:
        assert len(vocabulary.encode_phrase(word)) == 1


def test_alphabet_of_the_tiny_preset(vocabulary):
    assert vocabulary.integers.tolist() == list(range(0, 961, 30))
    words = [vocabulary.tokenizer.id_to_token(int(token)) for token in vocabulary.integer_ids]
    assert words == [str(number) for number in range(0, 961, 30)]
    assert {vocabulary.tokenizer.id_to_token(token) for token in vocabulary.command_ids.values()} == set(
        "MLCQSTZHVAmlcqstzhva"
    )
    assert vocabulary.tokenizer.id_to_token(vocabulary.minus_id) == "-"
    assert min(vocabulary.command_ids.values()) > 20


def test_tables_cover_the_models_vocabulary(vocabulary):
    values = vocabulary.value_of_token(320)
    assert values.shape == (320,)
    assert values[vocabulary.integer_ids].tolist() == list(range(0, 961, 30))
    assert (values >= 0).sum() == 33
    with pytest.raises(UserError, match=r"text\.vocabulary is 50"):
        vocabulary.value_of_token(50)


def _file_tokenizer(tmp_path: Path, pieces: list[str]) -> str:
    tokens = {f"<{index}>": index for index in range(21)}
    tokens |= {piece: 21 + index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<20>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


def test_lowest_id_is_written_and_all_spellings_are_read(tmp_path):
    name = _file_tokenizer(tmp_path, [" M", "M", "L", "Z", "0", " 480", "480", "960", "7", "- ", "-", "x1", "007"])
    paths = dataclasses.replace(tiny().paths, tokenizer=name, coordinate_step=480)
    vocabulary = Vocabulary.from_config(paths)
    assert vocabulary.command_ids == {"M": 21, "L": 23, "Z": 24}
    assert vocabulary.integers.tolist() == [0, 480, 960]
    assert vocabulary.integer_ids.tolist() == [25, 26, 28]
    assert vocabulary.minus_id == 30
    assert vocabulary.token_values == {25: 0, 26: 480, 27: 480, 28: 960, 29: 7}
    assert vocabulary.token_commands == {21: "M", 22: "M", 23: "L", 24: "Z"}


def test_reserved_ids_are_never_path_text(tmp_path):
    tokens = {"M": 3, "L": 4, "Z": 5, "0": 6, "960": 7, "word": 21}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="word"))
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    with pytest.raises(UserError, match="no token for M L Z"):
        Vocabulary.from_config(dataclasses.replace(tiny().paths, tokenizer=str(path)))


def test_missing_integers_are_left_out_and_named(tmp_path):
    name = _file_tokenizer(tmp_path, ["M", "L", "Z", "0", "480", "960"])
    paths = dataclasses.replace(tiny().paths, tokenizer=name, coordinate_step=240)
    with pytest.warns(UserWarning, match="no token for 2 of the path integers .*: 240 720"):
        vocabulary = Vocabulary.from_config(paths)
    assert vocabulary.integers.tolist() == [0, 480, 960]


@pytest.mark.skipif("MOONSEG_FIXTURES" not in os.environ, reason="MOONSEG_FIXTURES is not set")
def test_alphabet_of_an_official_style_tokenizer():
    file = Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / "helpers" / "helper_tokenizer.json"
    vocabulary = Vocabulary.from_config(dataclasses.replace(moondream3().paths, tokenizer=str(file)))
    values = vocabulary.value_of_token(1100)
    stream = [46, 526, 1006, 46, 56]
    assert values[stream].tolist() == [0, 480, 960, 0, 10]
    assert vocabulary.command_ids["M"] == 21 and vocabulary.command_ids["Z"] == 41


def test_prompt_follows_the_template(vocabulary):
    ids, values = vocabulary.prompt("the red star", [(0.25, 0.5), (0.1, 0.2, 0.3, 0.4)])
    word = vocabulary.tokenizer.token_to_id
    assert ids.tolist() == [1, 21, 2, 5, 5, 5, 5, 6, word("the"), word("red"), word("star"), 3]
    expected = np.zeros((12, 2), np.float32)
    expected[3:8] = [(0.25, 0), (0.5, 0), (0.1, 0), (0.2, 0), (0.3, 0.4)]
    np.testing.assert_array_equal(values, expected)


def test_case_and_blanks_do_not_matter_to_a_closed_vocabulary(vocabulary):
    assert vocabulary.encode_phrase("  The RED\tstar ") == vocabulary.encode_phrase("the red star")


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("", "phrase is empty"),
        (" \t\n", "phrase is empty"),
        ("the ret zebrafish", r"'ret' \(did you mean .*red.*'zebrafish' \(did you mean zebra"),
        ("the red " * 8, "16 tokens and the prompt bucket holds 12"),
        ("the red " * 800, r"^the phrase 'the red the red the red the red the red…' has 1600 tokens"),
        ("x" * 5000, r"^words outside the vocabulary of 'embedded:tiny': 'x{39}…'\. Known"),
        ("a1 b2 c3 d4 e5 f6 g7", r"and \d+ more\. Known"),
    ],
)
def test_bad_phrases_are_refused_with_a_remedy(vocabulary, phrase, message):
    with pytest.raises(UserError, match=message):
        vocabulary.encode_phrase(phrase)


@pytest.mark.parametrize("reference", [(0.1,), (0.1, 0.2, 0.3), (0.5, 1.2), (-0.1, 0.5), (float("nan"), 0.5)])
def test_bad_references_are_refused(vocabulary, reference):
    with pytest.raises(UserError, match="spatial reference"):
        vocabulary.prompt("the star", [reference])


def test_prompt_longer_than_its_bucket_is_refused(vocabulary):
    with pytest.raises(UserError, match=r"has 18 tokens, more than paths\.max_prompt_tokens = 16"):
        vocabulary.prompt("the red star", [(0.5, 0.5, 0.1, 0.1)] * 3 + [(0.5, 0.5)])


@pytest.mark.parametrize("name", ["embedded:huge", "/nowhere/tokenizer.json"])
def test_unreadable_tokenizer_names_the_field(name):
    with pytest.raises(UserError, match=r"paths\.tokenizer .* cannot be read"):
        Vocabulary.from_config(dataclasses.replace(tiny().paths, tokenizer=name))


def test_file_that_is_no_tokenizer_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="is not a tokenizers JSON file"):
        Vocabulary.from_config(dataclasses.replace(tiny().paths, tokenizer=str(path)))
