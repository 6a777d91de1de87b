"""The word list: whole words, whatever their case."""

import pytest

from moonseg_jax.clean.word_screen import WordScreen, read_words
from moonseg_jax.errors import UserError

LIST = "# bad ones\nhot\nhot dog  # food\n\nC++\nnaïve\nhot\n"


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("the hot plate", "hot"),
        ("the HOT  Dog left", "hot dog"),
        ("a shot", None),
        ("hotel", None),
        ("hot-tub", "hot"),
        ("hot_tub", None),
        ("the C++ book", "C++"),
        ("c++x", None),
        ("a NAÏVE man", "naïve"),
        ("", None),
    ],
)
def test_whole_words_are_found_whatever_their_case(tmp_path, phrase, word):
    (tmp_path / "words.txt").write_text(LIST, encoding="utf-8")
    screen = read_words(tmp_path / "words.txt")
    assert screen.words == ("hot", "hot dog", "C++", "naïve")
    assert screen.found_in(phrase) == word


def test_no_words_find_nothing():
    assert WordScreen(()).found_in("anything") is None


@pytest.mark.parametrize(
    ("content", "said"), [(b"# nothing\n\n", "lists no word"), (b"caf\xe9\n", "not UTF-8"), (None, "No such file")]
)
def test_lists_that_cannot_be_used_are_refused_by_name(tmp_path, content, said):
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"--words .*words\.txt.*{said}"):
        read_words(file)
