"""Every word the embedded data can say: the vocabulary the embedded tokenizers are built from."""

from __future__ import annotations

COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple", "white")
"""Colour words of the shapes data."""

KINDS = (
    "disc", "ring", "square", "frame", "triangle", "star", "cross", "crescent", "corner", "bar", "dots",
)  # fmt: skip
"""Shape words; `dots` is one object of two or three separate discs, `corner` an L."""

SIZES = ("small", "large")
"""Size words."""

ORDERS = ("leftmost", "rightmost", "topmost", "bottommost")
"""Words that pick the outermost object of a group."""

RELATIONS = (("left", "of"), ("right", "of"), ("above",), ("below",))
"""Phrases that place one object relative to another, word by word."""

ANY_KIND = "object"
"""Stands for a shape of any kind."""

ARTICLE = "the"
"""Every noun phrase of the shapes data starts with it."""

COCO_CATEGORIES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 category names of COCO, in the order of their ids."""

WORDS: tuple[str, ...] = tuple(
    sorted(
        {
            *COLOURS,
            *KINDS,
            *SIZES,
            *ORDERS,
            *(word for relation in RELATIONS for word in relation),
            ANY_KIND,
            ARTICLE,
            *(word for category in COCO_CATEGORIES for word in category.split()),
        }
    )
)
"""All single words, lower-case, unique, in alphabetical order: the order is part of the token ids."""
