"""What became of an answer: one vocabulary for prediction, evaluation, summaries and reports.

`refined`, or `unrefined: ` and why; only a mask that the refiner drew is called refined.
"""

from __future__ import annotations

REFINED = "refined"
NOT_ASKED = "unrefined: not asked for"
EMPTY_PATH = "unrefined: empty path, the policy drew nothing"
EMPTY_COARSE = "unrefined: empty coarse mask"
BAD_BOX = "unrefined: the box has a number that is not finite"
EMPTY_CROP = "unrefined: empty crop"
EMPTY_RESULT = "unrefined: the refiner's mask is empty"
KEPT = "unrefined: kept by the guard, the refined mask promises nothing better"
UNSAYABLE = "unrefined: the policy's vocabulary cannot say the phrase"

STATUSES = (REFINED, NOT_ASKED, EMPTY_PATH, EMPTY_COARSE, BAD_BOX, EMPTY_CROP, EMPTY_RESULT, KEPT, UNSAYABLE)
"""All there are."""


def is_as_asked(status: str) -> bool:
    """Whether nothing went wrong: refined, or coarse by request."""
    return status in (REFINED, NOT_ASKED, KEPT)
