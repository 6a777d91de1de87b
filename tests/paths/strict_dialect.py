"""An independent reader of the whole dialect, used to judge what the `full` grammar lets through, and paths for it.

It works on words, with regular expressions; it repairs nothing and drops nothing.
"""

from __future__ import annotations

import re
from random import Random

from strict_parser import spell

from moonseg_jax.config import PathConfig
from moonseg_jax.paths.vocabulary import Vocabulary

POINT = r"(?: (?:- )?\d+ (?:- )?\d+)"
SUBPATH = re.compile(
    rf" [Mm]{POINT}+(?: [LlTt]{POINT}+| [QqSs](?:{POINT}{{2}})+| [Cc](?:{POINT}{{3}})+)* [Zz]"
)  # fmt: skip
POINTS = {"M": 1, "L": 1, "T": 1, "Q": 2, "S": 2, "C": 3}


def is_proper(token_ids: list[int], vocabulary: Vocabulary, paths: PathConfig) -> bool:
    """Whether a completion is a box and closed subpaths of at least three points, to the last token."""
    whole = re.fullmatch(r"@coord @coord @size((?: [^@$ ]+)+) \$(?: \$)*", spell(token_ids, vocabulary, paths))
    if whole is None:
        return False
    text, points = whole[1], []
    while text:
        subpath = SUBPATH.match(text)
        if subpath is None:
            return False
        numbers = [int(number) for number in re.findall(r"\d+", subpath[0])]
        points.append(len(numbers) // 2)
        if any(number > 960 or number % paths.coordinate_step for number in numbers):
            return False
        text = text[subpath.end() :]
    return min(points) >= 3


def proper_path(random: Random, integers: list[int], most_words: int = 120) -> str:
    """Words of one to three proper subpaths of every kind of command, repetitions with and without letters."""
    while True:
        subpaths = [_subpath(random, integers) for _ in range(random.randint(1, 3))]
        words = " ".join(subpaths)
        enough = all(len(re.findall(r"\d+", subpath)) >= 6 for subpath in subpaths)
        if enough and len(words.split()) <= most_words:
            return words


def _subpath(random: Random, integers: list[int]) -> str:
    letters = ["M", *random.choices("LTQSC", k=random.randint(0, 4)), "Z"]
    words: list[str] = []
    for letter in letters:
        words.append(random.choice([letter, letter.lower()]))
        for _ in range(2 * POINTS.get(letter, 0) * random.randint(1, 3)):
            words += ["-"] * (random.random() < 0.3) + [str(random.choice(integers))]
    return " ".join(words)
