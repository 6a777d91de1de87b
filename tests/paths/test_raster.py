"""Coverage against exact areas, another renderer and finite differences."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import resvg_py
import shapely
from PIL import Image
from raster_samples import edges, exact_areas, square, star_shaped

from moonseg_jax.paths.raster import coverage

SIZE = 24
draw = jax.jit(coverage, static_argnames=("size", "rule", "at_once"))


def test_random_polygons_have_exact_areas():
    rng = np.random.default_rng(0)
    polygons = [star_shaped(rng, vertices) for vertices in (3, 4, 5, 7, 10, 15, 20, 40)]
    result = np.asarray(draw(edges(*[[polygon] for polygon in polygons]), SIZE))
    for row, polygon in zip(result, polygons):
        np.testing.assert_allclose(row, exact_areas(shapely.Polygon(polygon * SIZE), SIZE), atol=1e-5)


@pytest.mark.parametrize("rule", ["nonzero", "evenodd"])
def test_holes_of_opposite_direction_and_islands_have_exact_areas(rule):
    rng = np.random.default_rng(1)
    outer, hole, island = (star_shaped(rng, 9, reach) for reach in (0.49, 0.3, 0.1))
    outer = 0.5 + (outer - 0.5) * (0.49 / np.hypot(*(outer - 0.5).T))[:, None]
    hole = 0.5 + (hole - 0.5) * (0.25 / np.hypot(*(hole - 0.5).T))[:, None]
    expected = exact_areas(shapely.Polygon(outer * SIZE, [hole * SIZE]).union(shapely.Polygon(island * SIZE)), SIZE)
    result = np.asarray(draw(edges([outer, hole[::-1], island]), SIZE, rule=rule))[0]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_rules_differ_where_they_should():
    """Two overlapping squares [0, .6] and [.3, .9]: in the same direction and in opposite directions."""
    first, second = square(0, 0, 0.6, 0.6), square(0.3, 0.3, 0.9, 0.9)
    batch = edges([first, second], [first, second[::-1]])
    both, only_first, only_second = (4, 4), (1, 1), (7, 7)  # pixels of a 10 x 10 raster
    expected = {
        "nonzero": [[1, 1, 1], [0, 1, 1]],
        "evenodd": [[0, 1, 1], [0, 1, 1]],
        "union": [[1, 1, 1], [1, 1, 1]],
    }
    for rule, values in expected.items():
        result = np.asarray(draw(batch, 10, rule=rule))
        inside = [[row[pixel] for pixel in (both, only_first, only_second)] for row in result]
        np.testing.assert_allclose(inside, values, atol=1e-6, err_msg=rule)
        assert result.sum() == pytest.approx(sum(np.dot(value, [9, 27, 27]) for value in values), abs=1e-4)


def test_union_takes_the_larger_part_of_a_shared_pixel():
    """Two rectangles meet in the middle of pixel column 2: together they fill it, alone each fills half."""
    batch = edges([square(0, 0, 0.25, 1), square(0.25, 0, 0.5, 1), square(0.7, 0, 0.75, 1)])
    shared = {rule: np.asarray(draw(batch, 10, rule=rule))[0, 5, [1, 2, 3, 7]] for rule in ("nonzero", "union")}
    np.testing.assert_allclose(shared["nonzero"], [1, 1, 1, 0.5], atol=1e-5)
    np.testing.assert_allclose(shared["union"], [1, 0.5, 1, 0.5], atol=1e-5)


def test_five_pointed_star_crosses_itself():
    """The pentagram's middle has winding number two: filled by nonzero and union, empty under even-odd."""
    angle = np.arange(5) * 4 * np.pi / 5
    pentagram = 0.5 + 0.45 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centre = {
        rule: float(draw(edges([pentagram]), 24, rule=rule)[0, 12, 12]) for rule in ("nonzero", "union", "evenodd")
    }
    assert centre == pytest.approx({"nonzero": 1.0, "union": 1.0, "evenodd": 0.0}, abs=1e-5)


def test_frame_crops_and_stretches():
    rng = np.random.default_rng(2)
    polygons = [star_shaped(rng, 12) for _ in range(4)]
    frames = np.array([(0.0, 0.0, 1.0, 1.0), (0.3, 0.2, 0.7, 0.9), (0.45, 0.45, 0.55, 0.6), (-0.5, 0.4, 0.5, 1.5)])
    result = np.asarray(draw(edges(*[[polygon] for polygon in polygons]), SIZE, jnp.asarray(frames, jnp.float32)))
    for row, polygon, frame in zip(result, polygons, frames):
        stretched = (polygon - frame[:2]) / (frame[2:] - frame[:2]) * SIZE
        np.testing.assert_allclose(row, exact_areas(shapely.Polygon(stretched), SIZE), atol=3e-5)


def test_edges_across_every_border_are_cut_off_exactly():
    diamond = np.array([(0.5, -0.7), (1.6, 0.5), (0.5, 1.9), (-0.4, 0.5)])
    covering = square(-3, -3, 4, 4)
    result = np.asarray(draw(edges([diamond], [covering]), SIZE))
    np.testing.assert_allclose(result[0], exact_areas(shapely.Polygon(diamond * SIZE), SIZE), atol=1e-5)
    np.testing.assert_allclose(result[1], 1.0, atol=1e-6)


def test_degenerate_paths_draw_nothing_and_stay_finite():
    point = np.full((3, 2), 0.4)
    line = np.array([(0.1, 0.1), (0.7, 0.4), (0.1, 0.1), (0.7, 0.4)])
    level = np.array([(0.1, 0.5), (0.9, 0.5), (0.4, 0.5)])
    batch = edges([point], [line], [level], [square(0.2, 0.2, 0.2, 0.8)], slots=6)
    for rule in ("nonzero", "evenodd", "union"):
        np.testing.assert_allclose(draw(batch, SIZE, rule=rule), 0.0, atol=1e-5)
    gradient = jax.grad(lambda points: draw(batch.replace(points=points), SIZE).sum())(batch.points)
    assert np.isfinite(gradient).all()
    no_area = jnp.tile(jnp.array([[0.3, 0.3, 0.3, 0.8]]), (4, 1))
    np.testing.assert_array_equal(draw(edges(*[[square(0, 0, 1, 1)]] * 4), SIZE, no_area), 0.0)


def test_invalid_edges_do_not_draw():
    batch = edges([square(0.1, 0.1, 0.5, 0.5), square(0.6, 0.6, 0.9, 0.9)])
    first_only = batch.replace(
        valid=batch.valid & (batch.subpath == 0),
        points=jnp.where(batch.subpath[..., None, None] == 0, batch.points, jnp.nan),
    )
    result = np.asarray(draw(first_only, 10))[0]
    assert result.sum() == pytest.approx(16.0, abs=1e-4)


@pytest.mark.parametrize("rule", ["nonzero", "union"])
def test_gradient_agrees_with_finite_differences(rule):
    rng = np.random.default_rng(3)
    batch = edges([star_shaped(rng, 7), star_shaped(rng, 5, 0.2)[::-1]])
    weights = jnp.asarray(rng.normal(size=(1, SIZE, SIZE)), jnp.float32)

    def loss(points):
        return jnp.sum(weights * coverage(batch.replace(points=points), SIZE, rule=rule) ** 2)

    gradient = np.asarray(jax.jit(jax.grad(loss))(batch.points))
    value = jax.jit(loss)
    step = 2e-4
    for edge, end, axis in [(0, 0, 0), (2, 1, 1), (4, 0, 1), (8, 1, 0), (10, 0, 0)]:
        nudge = np.zeros(batch.points.shape, np.float32)
        nudge[0, edge, end, axis] = step
        numeric = float(value(batch.points + nudge) - value(batch.points - nudge)) / (2 * step)
        assert gradient[0, edge, end, axis] == pytest.approx(numeric, rel=0.02, abs=0.15)


def test_agrees_with_the_engines_renderer_at_one_half():
    """Rendered by resvg at twice the size and averaged, as the published engine does."""
    side = 192
    rng = np.random.default_rng(4)
    polygons = [star_shaped(rng, vertices) for vertices in (3, 5, 8, 13, 21, 34)]
    ours = np.asarray(draw(edges(*[[polygon] for polygon in polygons]), side)) > 0.5
    for row, polygon in zip(ours, polygons):
        path = "M" + "L".join(f"{x} {y}" for x, y in polygon) + "Z"
        size = f'viewBox="0 0 1 1" width="{2 * side}" height="{2 * side}"'
        document = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><path d="{path}" fill="white"/></svg>'
        pixels = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document))))
        alpha = np.asarray(pixels)[..., 3].reshape(side, 2, side, 2).mean(axis=(1, 3)) / 255
        theirs = alpha > 0.5
        assert (row & theirs).sum() / (row | theirs).sum() >= 0.99


def test_nothing_of_edges_times_pixels_is_held():
    batch = edges(*[[star_shaped(np.random.default_rng(seed), 48)] for seed in range(8)])
    memory = draw.lower(batch, 64).compile().memory_analysis()
    result = 8 * 64 * 64 * 4
    assert memory.output_size_in_bytes == result
    assert memory.temp_size_in_bytes < 5 * result


@pytest.mark.parametrize("rule", ["nonzero", "union"])
def test_drawing_a_few_at_once_gives_the_same_bits(rule):
    rng = np.random.default_rng(5)
    batch = edges(*[[star_shaped(rng, 9), star_shaped(rng, 7)[::-1]] for _ in range(7)])
    whole = np.asarray(draw(batch, 101, rule=rule))
    for at_once in (3, 20):
        np.testing.assert_array_equal(draw(batch, 101, rule=rule, at_once=at_once), whole)


def test_results_need_not_be_square():
    polygon = star_shaped(np.random.default_rng(6), 12)
    result = np.asarray(draw(edges([polygon]), (31, 17)))[0]
    np.testing.assert_allclose(result, exact_areas(shapely.Polygon(polygon * (17, 31)), 31, 17), atol=1e-5)


def test_full_size_masks_stay_within_a_ten_thousandth_of_the_exact_areas():
    """At 378 pixels, on every border pixel and on others beside them."""
    rng = np.random.default_rng(7)
    polygons = [star_shaped(rng, vertices) for vertices in (7, 40, 128)]
    result = np.asarray(draw(edges(*[[polygon] for polygon in polygons]), 378), np.float64)
    for row, polygon in zip(result, polygons):
        rows, columns = np.nonzero(((row > 0) & (row < 1)) | (rng.random(row.shape) < 0.01))
        pixels = shapely.box(columns, rows, columns + 1, rows + 1)
        exact = shapely.area(shapely.intersection(pixels, shapely.Polygon(polygon * 378)))
        assert np.abs(row[rows, columns] - exact).max() < 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_paths_and_frames_that_are_not_finite_draw_nothing_and_leave_others_alone(bad):
    good = star_shaped(np.random.default_rng(8), 8)
    broken = good.copy()
    broken[3, 1] = bad
    result = np.asarray(draw(edges([good], [broken], [good]), SIZE))
    assert result[1].max() == 0 and result[0].sum() > 10
    np.testing.assert_array_equal(result[2], result[0])
    for corner in range(4):
        frames = np.tile(np.array([[0.0, 0.0, 1.0, 1.0]], np.float32), (2, 1))
        frames[0, corner] = bad
        framed = np.asarray(draw(edges([good], [good]), SIZE, jnp.asarray(frames)))
        assert framed[0].max() == 0
        np.testing.assert_array_equal(framed[1], result[0])


@pytest.mark.parametrize("frame", [(0.2, 0.3, 0.2, 0.9), (0.6, 0.1, 0.4, 0.9), (0.5, 0.5, 0.5, 0.5)])
def test_frames_of_no_size_or_turned_around_show_nothing(frame):
    frames = jnp.asarray([frame], jnp.float32)
    np.testing.assert_array_equal(draw(edges([square(0, 0, 1, 1)]), SIZE, frames), 0)


def test_empty_paths_and_batches_are_drawn():
    nothing = edges([square(0, 0, 1, 1)])
    no_edges = jax.tree.map(lambda leaf: leaf[:, :0], nothing)
    no_paths = jax.tree.map(lambda leaf: leaf[:0], nothing)
    np.testing.assert_array_equal(draw(no_edges, SIZE), np.zeros((1, SIZE, SIZE)))
    np.testing.assert_array_equal(draw(nothing.replace(valid=jnp.zeros((1, 4), bool)), SIZE), 0)
    assert draw(no_paths, SIZE).shape == (0, SIZE, SIZE)


def test_repeated_points_change_nothing():
    polygon = star_shaped(np.random.default_rng(9), 9)
    repeated = np.repeat(polygon, [1, 3, 1, 1, 2, 1, 1, 1, 2], axis=0)
    np.testing.assert_array_equal(draw(edges([polygon], slots=13), SIZE), draw(edges([repeated]), SIZE))


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'odd' is not one of nonzero, evenodd, union"):
        coverage(edges([square(0, 0, 1, 1)]), SIZE, rule="odd")
