"""`moonseg path …`: from the words of a command to its files, its report and its errors."""

import json

import numpy as np
import pytest
from PIL import Image

from moonseg_jax import cli

TINY = "embedded:tiny"


@pytest.fixture
def moonseg(capsys, tmp_path, monkeypatch):
    """Runs a command in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = cli.main(["path", *words])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def mask(tmp_path):
    """A mask of two parts, one with a hole, and a speck; saved as mask.png."""
    pixels = np.zeros((60, 90), bool)
    pixels[5:35, 5:35] = pixels[40:50, 60:80] = pixels[2, 88] = True
    pixels[10:20, 10:20] = False
    save(tmp_path / "mask.png", pixels)
    return pixels


def save(file, pixels):
    Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8)).save(file)


def load(file):
    image = Image.open(file)
    assert image.mode == "L" and set(np.unique(image)) <= {0, 255}
    return np.asarray(image) > 0


@pytest.mark.parametrize("kind", ["json", "svg"])
def test_a_traced_mask_comes_back(moonseg, mask, kind, tmp_path):
    code, out, error = moonseg("trace", "mask.png", "-o", f"path.{kind}")
    assert (code, error) == (0, "")
    assert out == f"3 parts, 1 hole, 16 vertices, IoU 1.0000 with the mask; written to path.{kind}\n"
    code, out, error = moonseg("rasterize", f"path.{kind}", "--size", "60x90", "-o", "back.png")
    assert (code, error) == (0, "")
    assert out == f"{mask.sum()} pixels, 18.5% of 60x90, written to back.png\n"
    np.testing.assert_array_equal(load(tmp_path / "back.png"), mask)


def test_rules_and_sizes(moonseg, mask, tmp_path):
    moonseg("trace", "mask.png", "-o", "path.json")
    moonseg("rasterize", "path.json", "--size", "60x90", "-o", "union.png", "--rule", "union")
    mask[10:20, 10:20] = True
    np.testing.assert_array_equal(load(tmp_path / "union.png"), mask)
    moonseg("rasterize", "path.json", "--size", "180x270", "-o", "large.png", "--rule", "evenodd")
    mask[10:20, 10:20] = False
    np.testing.assert_array_equal(load(tmp_path / "large.png"), mask.repeat(3, axis=0).repeat(3, axis=1))


def test_the_largest_are_kept_and_the_loss_is_told(moonseg, mask):
    code, out, _ = moonseg("trace", "mask.png", "-o", "path.json", "--max-subpaths", "1")
    assert code == 0 and out.splitlines() == [
        "left out beyond --max-subpaths 1: 3 of the smallest outlines and holes; "
        "201 px (20.1% of the mask) lost, 100 px (10.0% of the mask) filled in",
        "1 part, 0 holes, 4 vertices, IoU 0.7266 with the mask; written to path.json",
    ]


def test_an_empty_mask_is_an_empty_path_and_an_empty_mask(moonseg, tmp_path):
    save(tmp_path / "mask.png", np.zeros((6, 7), bool))
    for kind in ("json", "svg"):
        assert moonseg("trace", "mask.png", "-o", f"path.{kind}") == (
            0, f"the mask is empty and so is the path; written to path.{kind}\n", "",
        )  # fmt: skip
        assert moonseg("rasterize", f"path.{kind}", "--size", "6x7", "-o", "back.png")[0] == 0
        assert load(tmp_path / "back.png").shape == (6, 7) and not load(tmp_path / "back.png").any()


def test_soft_masks_are_cut_at_half_and_it_is_said(moonseg, tmp_path):
    Image.fromarray(np.array([[0, 90, 255, 255, 0]] * 4, np.uint8)).save(tmp_path / "mask.png")
    code, out, _ = moonseg("trace", "mask.png", "-o", "path.json")
    assert code == 0 and out.startswith("mask.png has 3 grey levels: taken as foreground where brighter than half\n")
    assert json.loads((tmp_path / "path.json").read_text())["box"] == {"cx": 0.6, "cy": 0.5, "w": 0.4, "h": 1.0}


def test_the_photo_lies_beneath_the_path(moonseg, mask, tmp_path):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "photo.jpg")
    assert moonseg("trace", "mask.png", "-o", "path.svg", "--photo", "photo.jpg")[0] == 0
    text = (tmp_path / "path.svg").read_text()
    assert 'viewBox="0 0 90 60"' in text
    assert text.index('<image href="data:image/jpeg;base64,') < text.index("<path")


def test_vocabulary_reports_and_warns(moonseg, tmp_path):
    code, out, error = moonseg("vocabulary", "--tokenizer", TINY, "--json", "report.json")
    assert code == 0 and "integers     33 of 961 up to 960: 0–960 by 30\n" in out
    assert error.startswith("moonseg: warning: tokenizer 'embedded:tiny' has no token for 928 of the path integers")
    assert error.endswith("1–29 31–59 " + error.partition("1–29 31–59 ")[2]) and error.endswith("931–959\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integers"] == list(range(0, 961, 30)) and report["commands"]["M"] == [22]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace", "mask.png", "-o", "path.txt"), "path.txt: the name of a path file must end in .json or .svg"),
        (("trace", "gone.png", "-o", "path.svg"), "image 'gone.png': no such file"),
        (("trace", "mask.png", "-o", "gone/path.svg"), "gone/path.svg cannot be written: No such file or directory"),
        (
            ("trace", "mask.png", "-o", "path.svg", "--tolerance", "-1"),
            "--tolerance must be a number of pixels of at least 0, got -1.0",
        ),
        (
            ("trace", "mask.png", "-o", "path.svg", "--tolerance", "nan"),
            "--tolerance must be a number of pixels of at least 0, got nan",
        ),
        (("trace", "mask.png", "-o", "path.svg", "--max-subpaths", "0"), "--max-subpaths must be at least 1, got 0"),
        (("trace", "mask.png", "-o", "a.json", "--photo", "mask.png"), "--photo goes with an .svg; -o is a.json"),
        (
            ("trace", "mask.png", "-o", "a.svg", "--photo", "small.png"),
            "photo 'small.png' has 2x3 pixels (HxW), the mask 60x90",
        ),
        (
            ("rasterize", "a.svg", "--size", "60", "-o", "m.png"),
            "--size 60: give height x width in pixels, for example 480x640",
        ),
        (("rasterize", "a.svg", "--size", "99999x99999", "-o", "m.png"), "--size 99999x99999: the limit is 64000000"),
        (("rasterize", "a.svg", "--size", "6x9", "-o", "m.jpg"), "-o m.jpg: the name must end in .png"),
        (("rasterize", "gone.svg", "--size", "6x9", "-o", "m.png"), "gone.svg cannot be read: No such file"),
        (("rasterize", "empty.json", "--size", "6x9", "-o", "m.png"), "empty.json: field commands is missing"),
        (("vocabulary", "--tokenizer", "gone.json"), "paths.tokenizer 'gone.json' cannot be read"),
        (("vocabulary", "--tokenizer", "empty.json"), "paths.tokenizer 'empty.json' is not a tokenizers JSON file"),
        (("vocabulary", "--tokenizer", TINY, "--json", "gone/a.json"), "gone/a.json: No such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(moonseg, mask, tmp_path, words, said):
    save(tmp_path / "small.png", np.ones((2, 3), bool))
    (tmp_path / "empty.json").write_text("{}")
    code, _, error = moonseg(*words)
    lines = [line for line in error.splitlines() if not line.startswith("moonseg: warning: ")]
    assert code == 2 and len(lines) == 1 and lines[0].startswith(f"moonseg: error: {said}"), error
