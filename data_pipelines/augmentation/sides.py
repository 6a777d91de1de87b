"""Left and right in phrases: what a phrase says of the mirrored image, where that can be known."""

from __future__ import annotations

import re

MIRRORED = {
    **{one.format(side): one.format(other) for one in ("{0}", "{0}s", "{0}most", "{0}-most", "{0}hand", "{0}-hand",
       "{0}handed", "{0}-handed", "{0}side", "{0}-side", "{0}ward", "{0}wards", "far-{0}", "bottom-{0}", "top-{0}",
       "upper-{0}", "lower-{0}") for side, other in (("left", "right"), ("right", "left"))},
    "lefter": "righter", "righter": "lefter", "lefty": "righty", "righty": "lefty",
}  # fmt: skip
"""Word → word in the mirrored image."""

UNKNOWN = frozenset(
    "l r lt rt lft rgt rite east west eastern western clockwise counterclockwise anticlockwise oclock o'clock "
    "sign signs says saying said reads reading read letter letters word words number numbers numbered text writing "
    "written wrote spells logo label jersey clock watch backwards mirror mirrored reflection alphabet name named port "
    "starboard driver driver's drivers passenger passenger's english".split()
)
"""Words whose truth in the mirrored image is not known: abbreviations of sides, and what writing says."""
NOT_A_SIDE_BEFORE = frozenset(
    "next behind in under below above beside by at there here now before after away over up down out off against "
    "through across near past between around inside outside".split()
)
""""Right" before one of these may mean "directly", and "left" may be a verb: "the cup right next to him"."""
NOT_A_SIDE_AFTER = frozenset("all alright just has have had is was who he she they it be being been".split())
"""The same after one of these: "the one who left", "is right"."""

_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*|\d+")


def mirrored_phrase(phrase: str) -> str | None:
    """What a phrase says of the mirrored image.

    Args:
      phrase: in English.

    Returns:
      The phrase with left and right exchanged, spelling and case kept; the same phrase if it names no side; None
      where it cannot be known what it would mean.
    """
    found = list(_WORD.finditer(phrase))
    words = [match.group().lower() for match in found]
    if any(word in UNKNOWN or word.isdigit() for word in words) or '"' in phrase:
        return None
    changed, end = [], 0
    for place, (match, word) in enumerate(zip(found, words)):
        if word not in MIRRORED:
            # A compound that hides a side, such as "left-leaning", is none that we know.
            if any(part in ("left", "right") for part in re.split(r"[-']", word)):
                return None
            continue
        if word in ("left", "right") and _may_be_no_side(words, place):
            return None
        changed.append(phrase[end : match.start()] + _in_the_case_of(match.group(), MIRRORED[word]))
        end = match.end()
    return "".join(changed) + phrase[end:]


def _may_be_no_side(words: list[str], place: int) -> bool:
    before = words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    return before in NOT_A_SIDE_AFTER or after in NOT_A_SIDE_BEFORE


def _in_the_case_of(original: str, word: str) -> str:
    if original.isupper() and len(original) > 1:
        return word.upper()
    return word.capitalize() if original[0].isupper() else word
