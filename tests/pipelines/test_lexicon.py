"""The words the embedded tokenizers are built from."""

from data_pipelines.lexicon import COCO_CATEGORIES, WORDS
from data_pipelines.shapes.scene import draw_scene


def test_there_are_eighty_different_coco_categories():
    assert len(set(COCO_CATEGORIES)) == len(COCO_CATEGORIES) == 80
    assert COCO_CATEGORIES[0] == "person" and COCO_CATEGORIES[79] == "toothbrush"


def test_words_are_single_lower_case_sorted_and_few_enough_for_the_tiny_embedding():
    assert list(WORDS) == sorted({word for word in WORDS if word == word.lower() and " " not in word})
    assert len(WORDS) <= 170


def test_words_cover_every_category_and_every_phrase():
    said = {word for category in COCO_CATEGORIES for word in category.split()}
    for level in (2, 4):
        for index in range(100):
            for expression in draw_scene(3, index, level, "train").expressions:
                assert len(expression.phrase.split()) <= 12
                said.update(expression.phrase.split())
    assert said <= set(WORDS)
