"""Answers and their parts as the API writes them: a JSON object, or events of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from moonseg_jax.segmentation import Segmentation
from moonseg_jax.serve.request import SegmentRequest
from moonseg_jax.streaming import BoxDrawn, Finished, StreamEvent


def answer_fields(answer: Segmentation, request: SegmentRequest, request_id: str) -> dict[str, Any]:
    """`path` and `bbox` as Moondream gives them, and what became of the answer.

    Beside them `status` (see `moonseg_jax.status`), `request_id`, and `ignored` where the request set something that
    has no effect. An answer without a path has an empty one, and no `bbox`.
    """
    ignored = {"ignored": list(request.ignored)} if request.ignored else {}
    return {**answer.to_moondream(), "status": answer.status, "request_id": request_id, **ignored}


def event_fields(events: Iterable[StreamEvent], request: SegmentRequest, request_id: str) -> Iterator[dict[str, Any]]:
    """Events as the API has them: `bbox`, then `path_delta` of the coarse path, then `final` with the refined one.

    The chunks put together are the coarse path: blanks between commands are at the beginning of a chunk.
    """
    blank = ""
    for event in events:
        if isinstance(event, Finished):
            answer = answer_fields(event.segmentation, request, request_id)
            yield {"type": "final", **answer, "completed": True}
        elif isinstance(event, BoxDrawn):
            sides = dict(zip(("x_min", "y_min", "x_max", "y_max"), event.box))
            yield {"type": "bbox", "bbox": sides, "request_id": request_id}
        else:
            yield {"type": "path_delta", "chunk": blank + event.text, "completed": False}
            blank = " "
