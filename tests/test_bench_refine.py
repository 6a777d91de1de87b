"""The refiner's benchmark: same answers on both sides, figures that belong together; speeds are not judged here."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_models import micro, micro_params

from moonseg_jax.bench.refine import report
from moonseg_jax.bench.refine.ours import OurRun
from moonseg_jax.bench.refine.workload import Workload, make_workload
from moonseg_jax.commands_bench import BenchRefine
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.pytorch import export_checkpoint
from moonseg_jax.errors import UserError
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.policy import Policy
from moonseg_jax.refine_memory import bytes_per_crop
from moonseg_jax.weights import save_weights

SIDE, ITERATIONS = 48, 2
CONFIG = dataclasses.replace(micro(), refiner=dataclasses.replace(micro().refiner, iterations=ITERATIONS))


def micro_workload(crops: int) -> Workload:
    rng = np.random.default_rng(0)
    head = init_head(make_head(CONFIG), CONFIG.vision.width, 3)
    return Workload(
        policy=Policy.from_config(CONFIG), params=micro_params(), head_params=head,
        crops=rng.integers(0, 256, (crops, SIDE, SIDE, 3), np.uint8),
        coarse=(rng.random((crops, SIDE, SIDE)) > 0.5).astype(np.float32),
    )  # fmt: skip


def test_crops_of_the_workload_hold_an_object_and_its_box():
    work = make_workload("tiny", 3)
    assert work.crops.shape == (3, 96, 96, 3) and work.coarse.shape == (3, 96, 96)
    for crop, coarse in zip(work.crops, work.coarse):
        # A box grown by a quarter of itself per side fills 4/9 of its crop, more where the image ends.
        assert 0.4 < coarse.mean() < 0.8 and set(np.unique(coarse)) == {0.0, 1.0}
        assert crop.std() > 5


@pytest.mark.usefixtures("quick_compiling")
def test_both_sides_give_the_same_masks_and_figures_that_belong_together(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch", reason="the peer is PyTorch, which is not installed")
    monkeypatch.setattr(report, "make_workload", lambda preset, crops: micro_workload(crops))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    BenchRefine(batches=(2,), repeats=1, json=tmp_path / "figures.json").run()
    figures = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    (row,) = figures["batches"]
    assert row["batch"] == 2 and row["largest_difference"] < 1e-4 and figures["iterations"] == ITERATIONS
    ours, peer = row["ours"], row["peer"]
    assert ours["encoder_share"] + ours["head_share"] == pytest.approx(1) and 0 <= ours["encoder_share"] <= 1
    assert ours["estimated_bytes"] == 2 * bytes_per_crop(CONFIG, make_head(CONFIG))
    assert ours["temporary_bytes"] > 0
    assert ours["crops_per_second_by_engines"] == {"1": ours["crops_per_second"]}
    assert peer["crops_per_second"] == max(peer["crops_per_second_by_threads"].values())
    ratio = ours["crops_per_second"] / peer["crops_per_second"]
    assert row["crops_per_second_over_peer"] == pytest.approx(ratio, abs=0.01)


def test_the_peer_computes_the_fusion_once_and_gives_what_the_reader_gives(tmp_path):
    torch = pytest.importorskip("torch", reason="the peer is PyTorch, which is not installed")
    from experiments.pytorch_inference import RefinementHead, load_checkpoint
    from moonseg_jax.bench.torch_peer.refiner import TorchRefiner

    work, ours, exported = micro_workload(3), tmp_path / "ours", tmp_path / "exported"
    save_weights(ours, "policy", work.params, CONFIG)
    save_weights(ours, "refiner", work.head_params, CONFIG)
    export_checkpoint(ours, exported, naming=Naming.HF, refiner=True)
    peer = TorchRefiner.load(exported)
    masks, scores = peer.refine(work.crops, work.coarse)
    head = RefinementHead(*load_checkpoint(exported, torch.float32, "cpu")[::2])
    with torch.inference_mode():
        for n in range(3):
            features, mask = peer.encoder.encode_crops(work.crops[n : n + 1]), torch.as_tensor(work.coarse[n])
            for _ in range(ITERATIONS):
                logits, iou = head(*features, mask[None, None])
                mask = logits[0, int(iou[0].argmax())].sigmoid()
            np.testing.assert_allclose(masks[n], mask, atol=1e-5)
            assert scores[n] == pytest.approx(float(iou.max()), abs=1e-5)
    (exported / "refiner.safetensors").unlink()
    with pytest.raises(UserError, match="holds no refiner weights"):
        TorchRefiner.load(exported)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        TorchRefiner.load(ours / "nowhere")


def test_without_pytorch_our_figures_remain(monkeypatch):
    monkeypatch.setattr(report, "make_workload", lambda preset, crops: micro_workload(crops))
    monkeypatch.setattr(report, "is_installed", lambda: False)
    monkeypatch.setattr(report, "time_ours", lambda *_: OurRun(figures={"seconds": 1.0}, masks=np.zeros(1)))
    (row,) = report.bench_refine("tiny", batches=(4,), tell=lambda line: None)["batches"]
    assert row == {"batch": 4, "ours": {"seconds": 1.0}, "peer": "PyTorch is not installed"}


@pytest.mark.parametrize(("wrong", "message"), [({"batches": (8, 0)}, "--batches"), ({"repeats": 0}, "--repeats")])
def test_counts_out_of_range_are_refused(wrong, message):
    with pytest.raises(UserError, match=f"{message} must be 1 or more, got 0"):
        BenchRefine(**wrong).run()
