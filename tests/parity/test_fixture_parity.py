"""Our model equals the official code on every recorded output, at the recorded sizes; and it runs at other sizes."""

import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
from fixture_generated import SIZES, write_generated
from fixture_model import quantise
from run_fixture import run_fixture
from safetensors.numpy import load_file

ABSOLUTE, RELATIVE = 1e-5, 1e-4
"""Largest difference of float32 outputs: the first plus the second times the largest expected value."""
GIVEN = ("pipe/coarse_soft", "pipe/coarse_mask")
"""Where the refiner case starts: a renderer's antialiasing is no part of the model."""
UNRECORDED = (
    "text/layer0_tau", "text/layer2_tau", "misc/rope_cos_sin", "misc/tau_pos_layer0", "pipe/prenorm_features_every9",
)  # fmt: skip
"""Intermediate values that our modules do not hand out."""
GROUPS = {
    "vision0": 6, "vision1": 4, "text": 11, "textonly": 1, "greedy": 2, "forced": 9, "spatialref": 2, "region": 9,
    "misc": 1, "fp8": 2, "head": 10, "pipe": 13,
}  # fmt: skip
"""Outputs compared of every group."""

FIRST_EXPERTS = ("text_model.transformer.h.2.mlp.experts.weight", "model.text.blocks.2.mlp.fc1.weight")
"""The experts whose FP8 form was recorded, under either naming."""


class Case:
    """One recorded run and ours on its inputs."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.expected = dict(np.load(folder / "expected.npz"))
        self.found = run_fixture(folder)


@pytest.fixture(scope="module", params=["A_seed0", "A_seed1"])
def case(request) -> Case:
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    return Case(pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / request.param)


def assert_equals(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape, name
    if expected.dtype.kind == "f":
        tolerance = ABSOLUTE + RELATIVE * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("group", GROUPS)
def test_outputs_equal_the_official_ones(case, group):
    names = [
        name for name in case.expected
        if name.startswith(f"{group}/") and name not in GIVEN and not name.startswith(UNRECORDED)
    ]  # fmt: skip
    assert len(names) == GROUPS[group]
    for name in names:
        assert_equals(name, case.found[name], case.expected[name])


def test_variants_of_the_official_code_can_be_told_apart(case):
    found = case.found
    exact_gelu = found["text/logits_tau_erf_last12"] - found["text/logits"][-12:]
    assert np.abs(exact_gelu).max() > 1e-4
    assert np.abs(found["region/coord_logits_without_ln"] - found["region/coord_logits"]).max() > 0.1
    assert np.abs(found["region/coord_lut_hf"] - found["region/coord_lut"]).max() > 1e-3
    assert np.abs(found["vision0/prenorm"] - found["vision0/early"]).max() > 0.1


def test_cached_decoding_equals_the_full_pass_on_the_last_prompt_row(case):
    assert_equals("hidden", case.found["forced/hidden"][0], case.found["text/hidden"][-1])
    assert_equals("logits", case.found["greedy/logits"][0], case.found["text/logits"][-1])


def test_our_rounding_to_fp8_is_the_recorded_one(case):
    inputs = np.load(case.folder / "inputs.npz")
    weights = load_file(next(case.folder.glob("weights_*.safetensors")))
    (up,) = (weights[name] for name in FIRST_EXPERTS if name in weights)
    values, scales = quantise(up)
    np.testing.assert_array_equal(values.view(np.uint8), inputs["fp8/up_bytes"])
    np.testing.assert_array_equal(scales, inputs["fp8/up_scale"])
    assert np.abs(values.astype(np.float32)).max() == ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max


def test_other_sizes_run_from_end_to_end_and_stop_at_eos(tmp_path):
    write_generated(tmp_path)
    found = run_fixture(tmp_path)
    shapes = {name: found[name].shape for name in ("vision0/reconstructed", "text/logits", "head/logits", "pipe/iou")}
    assert shapes == {
        "vision0/reconstructed": (8, 6, 24), "text/logits": (1 + 4**2 + 9, SIZES["text"]["vocab_size"]),
        "head/logits": (1, 3, 33, 37), "pipe/iou": (2, 3),
    }  # fmt: skip
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["greedy/ids"].tolist() == [0]
    assert_equals("cached", found["forced/hidden"][0], found["text/hidden"][-1])
    assert_equals("exact GELU", found["text/logits_tau_erf_last12"], found["text/logits"][-12:])
    assert_equals("no norm", found["region/coord_logits"], found["region/coord_logits_without_ln"])
