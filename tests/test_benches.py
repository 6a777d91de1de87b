"""The benchmarks run and report what they promise; their figures are not judged here."""

import json
import sys

import numpy as np
import pytest
from tiny_models import micro

from moonseg_jax.bench.compiling import bench_compile
from moonseg_jax.bench.data import bench_data
from moonseg_jax.bench.experts import bench_experts
from moonseg_jax.bench.experts_on_tpu import count_on_tpu
from moonseg_jax.bench.raster import bench_raster, smooth_outlines
from moonseg_jax.commands_bench import BenchRaster
from moonseg_jax.errors import UserError

pytestmark = pytest.mark.slow


def test_routed_experts_are_timed_beside_dense_products():
    figures = list(bench_experts([1, 40], micro(experts=16).text, repeats=1))
    assert [row["assignments"] for row in figures] == [2, 80]
    assert [row["grouped_rows_per_assignment"] for row in figures] == [1.0, 1.75]
    for row in figures:
        assert row["dense_seconds"] > 0 and row["grouped_over_dense"] > 0


def test_a_preset_compiles_from_shapes_alone():
    figures = bench_compile("tiny")
    assert 0.6e6 < figures["policy_parameters"] < 1.6e6
    assert figures["compile_seconds"] > 0 and figures["temporary_bytes"] > 0


def test_counting_for_a_tpu_says_what_it_needs():
    try:
        (row,) = count_on_tpu([4], "v5e:2x2", micro(experts=16).text)
    except UserError as error:
        assert "install jax[tpu]" in str(error)
    else:
        assert row["flops_over_ideal"] < 2


def test_an_unknown_topology_is_refused():
    with pytest.raises(UserError, match="--tpu nowhere"):
        count_on_tpu([1], "nowhere")


def test_the_raster_is_timed_beside_others_that_draw_the_same_masks(tmp_path, capsys):
    BenchRaster(size=64, edges=24, batch=6, json=tmp_path / "figures.json").run()
    figures = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert (figures["size"], figures["edges"], figures["batch"]) == (64, 24, 6)
    assert figures["temporaries_over_masks"] < 64
    for name in ("cv2_fillPoly", "pycocotools", "engine_resvg"):
        beside = figures[name]
        ratio = figures["ours"]["masks_per_second"] / beside["masks_per_second"]
        assert beside["ours_times_as_fast"] == pytest.approx(ratio, abs=1e-3)
        assert beside["mean_iou_with_ours"] > 0.95


def test_a_renderer_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert bench_raster(16, 8, 2, repeats=1)["engine_resvg"] == {
        "skipped": "resvg-py is not installed; it comes with the extra [test]"
    }


def test_outlines_of_the_raster_bench_lie_on_the_lattice_and_inside_the_image():
    outlines = smooth_outlines(5, 40)
    assert outlines.shape == (5, 40, 2) and 0 <= outlines.min() < 0.2 and 0.8 < outlines.max() <= 1
    np.testing.assert_allclose(outlines * 960, np.round(outlines * 960), atol=1e-9)


@pytest.mark.parametrize(("field", "value"), [("size", 0), ("edges", 2), ("batch", 0)])
def test_counts_of_the_raster_bench_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"--{field} must be .* got {value}"):
        BenchRaster(**{field: value}).run()


def test_files_for_figures_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing/figures\.json: there is no folder"):
        BenchRaster(json=tmp_path / "missing/figures.json").run()
    with pytest.raises(UserError, match=r"--json .*: Is a directory; name another file"):
        BenchRaster(size=8, edges=4, batch=1, json=tmp_path).run()


def test_waiting_for_data_is_part_of_the_time_of_a_run():
    found = bench_data(
        preset="tiny", data=None, images_per_batch=2, phrases_per_image=1, crops=1, steps=2, threads=1
    )  # fmt: skip
    assert 0 <= found["waiting_seconds"] < found["together_seconds"]
    assert found["waiting_share"] == pytest.approx(found["waiting_seconds"] / found["together_seconds"])
    assert found["loader_samples_per_second"] > 0 and found["step_seconds"] > 0
