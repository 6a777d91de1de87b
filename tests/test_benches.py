"""The benchmarks run and report what they promise; their figures are not judged here."""

import pytest
from tiny_models import micro

from moonseg_jax.bench.compiling import bench_compile
from moonseg_jax.bench.experts import bench_experts
from moonseg_jax.bench.experts_on_tpu import count_on_tpu
from moonseg_jax.errors import UserError


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
