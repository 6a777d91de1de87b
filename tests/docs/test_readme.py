"""What the README tells a newcomer to type first works, and its picture shows what comes of it."""

import re
import shlex

import numpy as np
import pytest
from pages import ROOT, blocks
from PIL import Image
from pycocotools import mask as coco_mask

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax import cli

README = ROOT / "README.md"
SCENE, PHRASE = 30, "the bottommost ring"


@pytest.fixture(scope="module")
def truth():
    [example] = [one for one in generate_scene(0, SCENE, 2, "val").examples if one.phrase == PHRASE]
    return coco_mask.decode(example.target) > 0


def iou(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


def typed(start: str) -> list[str]:
    """The one line of a block of the README that begins so, as words."""
    lines = [line for block in blocks(README) for line in block.text.splitlines() if line.startswith(start)]
    assert len(lines) == 1, lines
    return shlex.split(lines[0])


@pytest.mark.usefixtures("quick_compiling")
def test_the_command_and_the_call_give_the_mask_of_the_picture(truth, monkeypatch, tmp_path):
    words = typed("moonseg segment")
    assert PHRASE in words
    monkeypatch.chdir(ROOT)
    words[words.index("mask.png")] = str(tmp_path / "mask.png")
    assert cli.main(words[1:]) == 0
    mask = np.array(Image.open(tmp_path / "mask.png")) > 0
    assert round(float(iou(mask, truth)), 2) == 0.94, "the picture says so: python docs/figures/draw.py"

    [call] = [block.text for block in blocks(README) if block.language == "python"]
    names: dict = {}
    exec(compile(call, str(README), "exec"), names)
    result = names["result"]
    assert result.status == "refined"
    np.testing.assert_array_equal(result.mask, mask)
    assert round(float(iou(result.coarse_mask, truth)), 2) == 0.80


def test_the_scene_is_the_one_that_the_embedded_data_draws():
    drawn = generate_scene(0, SCENE, 2, "val").examples[0].image
    np.testing.assert_array_equal(np.array(Image.open(ROOT / "docs" / "figures" / "scene.png")), drawn)


def test_the_quickstart_takes_the_options_it_is_shown_with(capsys):
    """`tests/test_quickstart.py` runs it."""
    target, *arguments = typed("make quickstart")[1:]
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        raise SystemExit(cli.main(["quickstart", "--help"]))
    known = capsys.readouterr().out
    shown = set(re.findall(r'ARGS="([^"]*)"', README.read_text(encoding="utf-8")))
    options = {word for words in [*shown, *arguments] for word in re.findall(r"--[\w-]+", words)}
    assert {"--minutes", "--from-scratch"} <= options
    assert [option for option in sorted(options) if option not in known] == []
