"""Phrases that say a word of a list are left out; the list is the user's."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from moonseg_jax.errors import UserError


class WordScreen:
    """Finds listed words and phrases, whatever their case, where they stand as whole words."""

    def __init__(self, words: tuple[str, ...]):
        """Prepares the search.

        Args:
          words: single words or phrases; none finds nothing.
        """
        self.words = words
        # The longest first, so that of "hot" and "hot dog" the more telling one is named. \b would not do: a
        # listed word may begin or end with a sign.
        longest_first = sorted(words, key=len, reverse=True)
        choices = "|".join(r"\s+".join(map(re.escape, word.split())) for word in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE) if words else None

    def found_in(self, phrase: str) -> str | None:
        """The first listed word that the phrase says, as the list has it; None for a phrase without one."""
        match = self._pattern.search(phrase) if self._pattern else None
        if match is None:
            return None
        said = " ".join(match.group().split()).casefold()
        return next((word for word in self.words if " ".join(word.split()).casefold() == said), match.group())

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ where the lists do."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]


def read_words(file: Path) -> WordScreen:
    """Reads a list: a word or phrase a line; `#` starts a comment, empty lines count nothing.

    Raises:
      UserError: the file is missing, is not UTF-8 text or lists nothing.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--words {file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"--words {file}: {error.strerror or error}; name a text file of one word a line") from error
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    words = tuple(dict.fromkeys(line for line in lines if line))
    if not words:
        raise UserError(f"--words {file} lists no word; write one a line, or leave --words out to screen nothing")
    return WordScreen(words)
