"""What is known of a data set before it is judged."""

import pytest
from tiny_models import scenes

from data_pipelines.manifest import DataManifest
from moonseg_jax.errors import UserError
from moonseg_jax.evaluation import held_out
from moonseg_jax.evaluation.settings import EvalSettings


class Source:
    """Two scenes on disk, the second one broken."""

    def __init__(self, name):
        self.manifest = DataManifest(name=name, settings={"variant": "categories"}, splits={"val": 2}, path="here")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            raise ValueError("the image of record 1 is neither PNG nor JPEG")
        return scenes(1)[0]


@pytest.mark.parametrize(("name", "are_classes"), [("lvis", True), ("grefcoco", False)])
def test_the_phrases_of_lvis_are_classes(monkeypatch, tmp_path, name, are_classes):
    monkeypatch.setattr(held_out, "open_split", lambda folder, split: Source(name))
    found = held_out.open_held_out(EvalSettings(dataset=tmp_path, limit=9, split="val"))
    assert (found.phrases_are_classes, found.count, found.phrases, found.embedded) == (are_classes, 2, None, False)
    assert found.described["settings"] == {"variant": "categories"} and found.described["split"] == "val"
    assert held_out.open_held_out(EvalSettings(dataset=tmp_path, limit=1)).count == 1


def test_a_broken_image_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(held_out, "open_split", lambda folder, split: Source("coco"))
    found = held_out.open_held_out(EvalSettings(dataset=tmp_path))
    assert found.read(0) is scenes(1)[0]
    with pytest.raises(UserError, match=r"split 'val', scene 1: the image of record 1 is neither"):
        found.read(1)
