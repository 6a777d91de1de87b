"""Path data of every kind: what it draws, judged by resvg, and where broken text stops."""

import io

import numpy as np
import pytest
import resvg_py
from PIL import Image

from moonseg_jax.errors import UserError
from moonseg_jax.paths.engine.path_data import flatten, polygons_of_path, read_path_data
from moonseg_jax.paths.engine.render import coarse_mask, render_path, soft_fill
from moonseg_jax.paths.svg import svg_document

HEIGHT, WIDTH, BOX = 83, 97, (0.5, 0.5, 0.9, 0.8)


def drawn_by_resvg(path: str) -> np.ndarray:
    """As the engine draws it: at twice the size, alpha averaged."""
    document = svg_document(path, BOX, width=2 * WIDTH, height=2 * HEIGHT)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document)))))
    return pixels[..., 3].reshape(HEIGHT, 2, WIDTH, 2).mean(axis=(1, 3)) / 255


WHOLE = {
    "compact numbers": "M.1.2L.8.15.9.9z",
    "relative lines and implicit line-tos": "m.1.2 .7-.05 .1.75zl.2.2.1-.3",
    "horizontal and vertical": "M.1,.1 H.8 V.5 h-.2 v.3 H.1z",
    "quadratics, reflected and relative": "M.2.2 Q.5 0 .7.3 T.4.6 t-.1-.1 q.1.1-.1 0 z",
    "cubics, reflected and relative": "M.2.2S.5.0.8.3 .4.9.1.7c.1.1-.1.2 0-.5s.2.1.3.2z",
    "large arc": "M.1.5A.3.2 30 1 0 .7.4z",
    "flags without blanks": "M.1.5a.3.2 30 0165.1.0z",
    "relative arcs": "M .1 .5 a .25 .4 0 0 1 .5 0 a .25 .1 45 1 1 -.3 .2 z",
    "radii that do not reach": "M .5 .1 A .05 .05 0 0 1 .5 .9 z",
    "commas before commands": "M.1,.1,L.9,.1,H.9,V.9,z",
    "exponents and signs": "M 1e-1 1E-1 L+.9.1 .5.8",
    "a subpath that goes on after its end": "M.1.1l.8 0 0 .8z l.3 .1 -.1 .2",
    "overlap of one direction": "M.1.1L.7.1.7.7.1.7z M.3.3L.9.3.9.9.3.9z",
    "a hole": "M.1.1L.9.1.9.9.1.9z M.3.3L.3.7.7.7.7.3z",
}
BROKEN = {
    "a number is missing": ("M.1.1 L.9.1 .9.9 .5", "position 19: L takes 2 numbers at a time, number 2 is missing"),
    "an argument is missing": ("M.1.1 L.9.1 .9.9 H z L.5.5", "position 19: H takes 1 numbers at a time"),
    "a letter is none": ("M.1.1 L.9.1 .9.9 X .1 .9z", "position 17: 'X' is no command letter"),
    "a number after the end": ("M.1.1.9.1.9.9z.1.1", "position 14: '.' is no command letter"),
    "an arc is short": ("M.1.1 L.9.1 .9.9 A .1 .2 .3 1 0 .6 z", "A takes 7 numbers at a time, number 7 is missing"),
    "no start": ("L.5.5", "position 0: 'L' comes before the first M"),
}


@pytest.mark.parametrize("path", WHOLE.values(), ids=WHOLE)
def test_whole_paths_are_drawn_as_resvg_draws_them(path):
    assert read_path_data(path).error is None
    ours, theirs = render_path(path, BOX, HEIGHT, WIDTH), drawn_by_resvg(path)
    np.testing.assert_allclose(ours, theirs, atol=0.13)
    assert ours.sum() == pytest.approx(theirs.sum(), rel=3e-3)
    differing = coarse_mask(ours) != (theirs > 0.5)
    assert differing.sum() <= 0.005 * (theirs > 0.5).sum()


@pytest.mark.parametrize(("path", "error"), BROKEN.values(), ids=BROKEN)
def test_broken_paths_are_drawn_up_to_the_error_and_say_where_it_is(path, error):
    assert error in str(read_path_data(path).error)
    np.testing.assert_allclose(render_path(path, BOX, HEIGHT, WIDTH), drawn_by_resvg(path), atol=0.05)
    with pytest.raises(UserError, match="path data, position"):
        polygons_of_path(path)


def test_lines_stay_whole_and_curves_follow_within_the_tolerance():
    (square,) = polygons_of_path("M0 0H1V1H0z")
    np.testing.assert_allclose(square, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], atol=1e-12)
    (disc,) = polygons_of_path("M-1 0A1 1 0 0 1 1 0A1 1 0 0 1-1 0z", tolerance=1e-3)
    middles = (disc[1:] + disc[:-1]) / 2
    assert np.abs(np.linalg.norm(disc, axis=1) - 1).max() < 3e-4
    assert 1 - np.linalg.norm(middles, axis=1).min() < 1.3e-3
    assert len(disc) < 80


def test_flattening_divides_only_what_bends():
    line = [[0, 0], [1 / 3, 0], [2 / 3, 0], [1, 0]]
    arch = [[1, 0], [1, 1], [2, 1], [2, 0]]
    vertices = flatten(np.array([line, arch], float), 0.1)
    # Second differences of the arch are (1, -1) and (-1, -1): ceil(sqrt(.75 * 1.414 / .1)) = 4 parts.
    assert len(vertices) == 1 + 1 + 4
    np.testing.assert_allclose(vertices[3], (1.5, 0.75))


def test_soft_masks_count_samples_as_eight_bit_antialiasing_does():
    """A quarter of a pixel that is covered whole gives 255 of 255; one whose 16 samples are half covered, 128."""
    soft = soft_fill([np.array([(0, 0), (1.5, 0), (1.5, 0.5), (0, 0.5)])], 1, 3)
    np.testing.assert_allclose(soft, [[0.5, 0.25, 0]])
    quarter = soft_fill([np.array([(0, 0), (1, 0), (1, 0.25), (0, 0.25)])], 1, 1)
    np.testing.assert_allclose(quarter, [[128 / 255 / 2]])
