"""The PyTorch reader of exported checkpoints against official outputs, and against our model at tiny size."""

import functools
import json
import os
import pathlib
import re
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_models import UNIT_SIZED, compile_quickly

from moonseg_jax.batch import prompt_batch
from moonseg_jax.config import tiny
from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.pytorch import export_checkpoint
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.model.refiner import head_shapes, make_head, refine_loop
from moonseg_jax.policy import Policy
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import GREEDY
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.rollout.values import values_from_bins
from moonseg_jax.types import Example
from moonseg_jax.weights import save_weights

torch = pytest.importorskip("torch", reason="the bridge ends in PyTorch, which is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402

from experiments import pytorch_inference as bridge  # noqa: E402

torch.set_grad_enabled(False)


def close(got, expected):
    got = np.asarray(got, np.float64).reshape(np.shape(expected))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 + 1e-4 * np.abs(expected).max())


class Official:
    """One fixture: its arrays, and its weights laid out as an exported checkpoint."""

    def __init__(self, folder: pathlib.Path, scratch: pathlib.Path):
        self.inputs, self.expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
        self.config = json.loads((folder / "config.json").read_text())
        naming = self.config["weight_naming"]
        self.head = folder / "refiner_head.safetensors"
        self.weights = load_file(folder / f"weights_{naming}.safetensors")
        self.encoder = load_file(folder / f"refiner_vision_{naming}.safetensors")
        self.scratch = scratch

    def load(self):
        """The model as it is."""
        return self._read("policy", self.config, self.weights)

    def load_with_refiner_encoder(self):
        """The same with the vision encoder that the fixture's refiner reads."""
        fields = self.config["refiner_vision"], self.config["refiner_early_layer"]
        config = self.config | dict(zip(("vision", "vision_early_layer"), fields))
        rest = {name: tensor for name, tensor in self.weights.items() if name not in self.encoder}
        return self._read("refiner", config, rest, self.encoder)

    def _read(self, name, config, *shards):
        folder = self.scratch / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        files = ["model.safetensors"]
        if len(shards) > 1:
            files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
            index = {tensor: file for file, shard in zip(files, shards) for tensor in shard}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        for file, shard in zip(files, shards):
            save_file({tensor: values.contiguous() for tensor, values in shard.items()}, folder / file)
        (folder / "refiner.safetensors").write_bytes(self.head.read_bytes())
        config, policy, head = bridge.load_checkpoint(folder, torch.float32, "cpu")
        return bridge.Moondream(config, policy), bridge.RefinementHead(config, head)


@pytest.fixture(scope="module", params=["A_seed0", "A_seed1"])
def official(request, tmp_path_factory):
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    folder = pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3" / request.param
    return Official(folder, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def official_model(official):
    return official.load()[0]


@pytest.fixture(scope="module")
def official_refiner(official):
    return official.load_with_refiner_encoder()


def tensor(array):
    return torch.as_tensor(np.asarray(array))


def new_cache(model, slots):
    width = model.text["wte"].shape[1] // model.heads
    return torch.zeros(len(model.blocks), 2, model.heads, slots, width, dtype=model.dtype)


@pytest.mark.parametrize("case", ["vision0", "vision1"])
def test_vision_equals_official(official, official_model, case):
    crops, tiling = official.inputs[f"{case}/crops"], tuple(official.inputs[f"{case}/tiling"].tolist())
    final, early = official_model.encode_crops(crops)
    close(final, official.expected[f"{case}/features"])
    if case == "vision0":
        close(early[:2], official.expected[f"{case}/early"])
    close(official_model.embed_image(crops, tiling), official.expected[f"{case}/projected"])


def official_sequence(official, model):
    image = tensor(official.expected["vision0/projected"])
    ids = official.inputs["text/prompt_ids"].tolist()
    text = model.embed([0, *ids], [(0.0, 0.0)] * (1 + len(ids)))
    return torch.cat([text[:1], image, text[1:]]), 1 + len(image)


def test_full_pass_equals_official(official, official_model):
    rows, prefix = official_sequence(official, official_model)
    close(rows, official.inputs["text/inputs_embeds"])
    hidden = official_model.run(rows, new_cache(official_model, len(rows)), 0, prefix)
    close(hidden, official.expected["text/hidden"])
    close(official_model.logits(hidden), official.expected["text/logits"])


def test_exact_gelu_of_tau_equals_official(official, official_model):
    model = bridge.Moondream(official.config | {"tau_gelu": "exact"}, bridge.Weights(official_model.text.tensors))
    rows, prefix = official_sequence(official, model)
    logits = model.logits(model.run(rows, new_cache(model, len(rows)), 0, prefix))
    close(logits[-12:], official.expected["text/logits_tau_erf_last12"])


def test_text_alone_equals_official(official, official_model):
    ids = official.inputs["textonly/ids"].tolist()
    rows = official_model.embed(ids, [(0.0, 0.0)] * len(ids))
    hidden = official_model.run(rows, new_cache(official_model, len(rows)), 0, 0)
    close(official_model.logits(hidden), official.expected["textonly/logits"])


def test_greedy_decoding_equals_official(official, official_model):
    image, prompt = tensor(official.expected["vision0/projected"]), official.inputs["text/prompt_ids"].tolist()
    expected = official.expected["greedy/ids"].tolist()
    seen = []
    official_model.logits, logits_of = lambda row: seen.append(logits_of(row)) or seen[-1], official_model.logits
    completion = official_model.segment(image, prompt, budget=12)
    official_model.logits = logits_of
    assert [token for token, _ in completion] == expected
    close(torch.stack(seen), official.expected["greedy/logits"])


def test_forced_run_equals_official(official, official_model):
    rows, prefix = official_sequence(official, official_model)
    forced = official.inputs["forced/ids"].tolist()
    cache, position = new_cache(official_model, len(rows) + len(forced)), 0
    hidden, values = [], []
    for token in forced:
        hidden.append(official_model.run(rows, cache, position, prefix)[-1])
        coord, (width, height) = official_model.region_values(hidden[-1])
        values.append((coord, width, height))
        fed = (coord, 0.0) if token == official_model.coord else (width, height)
        position, rows = position + len(rows), official_model.embed([token], [fed])
        close(rows[0], official.expected["forced/embed"][len(hidden) - 1])
    close(torch.stack(hidden), official.expected["forced/hidden"])
    close(official_model.logits(torch.stack(hidden)), official.expected["forced/logits"])
    for got, name in zip(np.transpose(values), ("coord", "width", "height")):
        np.testing.assert_allclose(got, official.expected[f"forced/{name}"], rtol=1e-6)


def test_spatial_references_equal_official(official, official_model):
    tokens = [(1, (0.0, 0.0)), (77, (0.0, 0.0)), (2, (0.0, 0.0))]
    (x, y, *_), (x0, y0, x1, y1) = official.inputs["spatialref/refs"].tolist()
    centre, size = ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0, y1 - y0)
    tokens += [(5, (value, 0.0)) for value in (x, y, *centre)] + [(6, size)]
    tokens += [(token, (0.0, 0.0)) for token in official.inputs["text/prompt_ids"].tolist()[3:]]
    prompt = official_model.embed(*zip(*tokens))
    close(prompt, official.expected["spatialref/prompt_embeds"])
    rows, prefix = official_sequence(official, official_model)
    rows = torch.cat([rows[:prefix], prompt])
    hidden = official_model.run(rows, new_cache(official_model, len(rows)), 0, prefix)
    close(official_model.logits(hidden[-1]), official.expected["spatialref/logits"])


def test_region_heads_equal_official(official, official_model):
    coord, size = official_model.region_logits(tensor(official.inputs["region/hidden"]))
    close(coord, official.expected["region/coord_logits"])
    close(size[:, 0], official.expected["region/width_logits"])
    close(size[:, 1], official.expected["region/height_logits"])
    config = official.config | {"region": official.config["region"] | {"use_ln": False}}
    old = bridge.Moondream(config, bridge.Weights(official_model.text.tensors))
    coord, _ = old.region_logits(tensor(official.inputs["region/hidden"]))
    close(coord, official.expected["region/coord_logits_without_ln"])


def test_head_equals_official(official, official_refiner):
    _, head = official_refiner
    inputs = (tensor(official.inputs[f"head/{name}"]) for name in ("final_features", "early_features", "mask"))
    logits, iou = head(*inputs)
    close(logits, official.expected["head/logits"])
    close(iou, official.expected["head/iou"])


def test_refiner_equals_official(official, official_refiner):
    model, head = official_refiner
    corners = official.config["refiner_case"]["bbox"]
    x0, y0, x1, y1 = (corners[name] for name in ("x_min", "y_min", "x_max", "y_max"))
    inputs, seen = [], []

    class Recorded(bridge.RefinementHead):
        def __call__(self, final, early, mask):
            inputs.append((final, early))
            seen.append(super().__call__(final, early, mask))
            return seen[-1]

    coarse, photo = official.inputs["pipe/coarse_mask"].astype(bool), official.inputs["pipe/image"]
    box = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    refined = bridge.refine(model, Recorded(official.config, head.w), photo, box, coarse)
    for features, name in zip(inputs[0], ("final", "early")):
        close(features[0, ::3], official.expected[f"pipe/{name}_features_every3"])
    logits, iou = (torch.cat(outputs) for outputs in zip(*seen))
    close(iou, official.expected["pipe/iou"])
    close(logits[:, :, ::14, ::14], official.expected["pipe/logits_sub"])
    np.testing.assert_array_equal(iou.argmax(1), official.expected["pipe/best_idx"])
    np.testing.assert_array_equal(refined, official.expected["pipe/pasted"].astype(bool))


@pytest.fixture(scope="module")
def helpers():
    if "MOONSEG_FIXTURES" not in os.environ:
        pytest.skip("MOONSEG_FIXTURES does not name the folder of official outputs")
    folder = pathlib.Path(os.environ["MOONSEG_FIXTURES"]) / "moondream3/helpers"
    cases = json.loads((folder / "helpers.json").read_text())
    return folder, cases, np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")


def test_tilings_are_the_official_ones(helpers):
    cases = helpers[1]["select_tiling"]
    got = [list(bridge.count_tiles(*case)) for case in cases["cases"]]
    assert got == cases["out"]


@pytest.mark.parametrize("number", range(6))
def test_crops_are_those_of_the_official_engine(helpers, number):
    _, cases, inputs, expected = helpers
    config = cases[f"crops{number}"]
    crops, tiling = bridge.make_crops(inputs[f"crops{number}/image"], config)
    assert list(tiling) == config["tiling"]
    official = expected[f"crops{number}/kestrel_native"].astype(int)
    assert np.abs(crops - official).max() <= 2


def test_path_text_is_the_official_one(helpers):
    tokenizer = bridge.Tokenizer.from_file(str(helpers[0] / "helper_tokenizer.json"))
    for case in helpers[1]["svg"]:
        completion = [(token, (0.0, 0.0)) for token in case["token_ids"]]
        if case["error"] is None:
            assert bridge.path_text(bridge.read_path(completion, tokenizer)) == case["path"]
        else:
            with pytest.raises(ValueError, match="no path"):
                bridge.read_path(completion, tokenizer)


@pytest.mark.parametrize("number", range(6))
def test_filled_paths_are_the_official_masks(helpers, number):
    case, soft = helpers[1]["render"][number], helpers[3][f"render{number}"]
    words = re.findall(r"[A-Za-z]|-?(?:\d+\.?\d*|\.\d+)", case["path"])
    commands = []
    for word in words:
        if word.isalpha():
            commands.append((word, []))
        else:
            commands[-1][1].append(float(word))
    polygons = bridge.outlines([(letter, np.reshape(numbers, (-1, 2))) for letter, numbers in commands])
    cx, cy, w, h = case["bbox_cxcywh"]
    placed = [polygon * (w, h) + (cx - w / 2, cy - h / 2) for polygon in polygons]
    mask, expected = bridge.fill(placed, case["height"], case["width"]), soft > 0.5
    assert np.abs(soft[mask != expected] - 0.5).max(initial=0.0) < 0.3
    assert (mask != expected).sum() <= 0.03 * mask.sum()


def test_smooth_and_relative_curves_mirror_the_control_point():
    quarter = np.array([[0.0, 0.0]])
    arc = [("M", quarter), ("q", np.array([[0.25, 0.5], [0.5, 0.0]])), ("t", np.array([[0.5, 0.0]]))]
    (outline,) = bridge.outlines(arc)
    np.testing.assert_allclose(outline[[0, 13, 25, 37, 49]], [[0, 0], [0.25, 0.25], [0.5, 0], [0.75, -0.25], [1, 0]])


BUDGET = 24
"""Tokens decoded at tiny size."""
PHRASE = "The red  star"


def random_params(shapes, seed):
    """Every parameter random, so that none can be lost or swapped unseen."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        fan_in = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        size = fan_in**-0.5 if name in ("kernel", "up", "down") else 0.7 if name in UNIT_SIZED else 0.1
        return (rng.normal(0.0, size, leaf.shape) + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A tiny policy and head with random parameters, saved as our checkpoint; answers of our model."""
    policy = Policy.from_config(tiny())
    paths, params = policy.config.paths, random_params(policy.shapes(), seed=6)
    # Large embeddings and likely control tokens: a varied run that feeds coordinates and sizes back. Large boxes:
    # the refiner has something to see.
    params["text"]["embedding"]["embedding"] *= 4.0
    params["region"]["size_decoder"]["bias"].reshape(2, -1)[:, 110:] += 6.0
    params["text"]["head"]["bias"][[paths.coord_token, paths.size_token]] += 1.5
    width, module = policy.config.vision.width, make_head(policy.config)
    head = random_params(head_shapes(module, width), seed=4)
    folder = tmp_path_factory.mktemp("ours")
    save_weights(folder, "policy", params, policy.config)
    save_weights(folder, "refiner", head, policy.config)
    image = np.random.default_rng(5).integers(0, 256, (150, 230, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 9, dst=image)
    example = Example(image=image, phrase=PHRASE, target=None, image_id=0, example_id=0)
    batch = prompt_batch([[example]], policy.layout(1, 1 + policy.config.vision.max_tiles))
    greedy = functools.partial(sample, policy.model, keys=None, sampling=Sampling(temperature=GREEDY))

    def complete(params, batch):
        """Free completions with all their logits and values, and completions under the grammar."""
        freely, _ = greedy(policy.grammar.unenforced(), params, batch, budgets=jnp.full(1, BUDGET))
        seen = completion_logits(policy.model, params, batch, freely.token_ids, freely.bins)
        values = values_from_bins(freely.token_ids, freely.bins, policy.config.region, paths)
        return freely, seen.logits, values, greedy(policy.grammar, params, batch)[0]

    decoded, logits, values, polygons = compile_quickly(jax.jit(complete), params, batch)(params, batch)

    def improve(params, head_params, crops, coarse):
        final, early = policy.model.apply({"params": params}, crops, method="encode_crops")
        return refine_loop(module, head_params, final, early, coarse, policy.config.refiner.iterations)

    mask = np.zeros((96, 96), np.float32)
    mask[20:60, 30:80] = 1
    crop = np.ascontiguousarray(image[:96, :96])
    inputs = (params, head, crop[None], mask[None])
    refined = jax.device_get(compile_quickly(jax.jit(improve), *inputs)(*inputs))
    return SimpleNamespace(
        folder=folder, config=policy.config, vocabulary=policy.vocabulary, image=image, crop=crop, mask=mask,
        decoded=decoded, logits=logits, values=values, polygons=polygons, refined=refined,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["hf", "md3"])
def exported_folder(request, ours, tmp_path_factory):
    """The tiny checkpoint exported in several shards."""
    folder = tmp_path_factory.mktemp("exported") / request.param
    export_checkpoint(ours.folder, folder, naming=Naming(request.param), refiner=True, max_shard=1 << 20)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def exported(exported_folder):
    """The same read with PyTorch: policy and head."""
    config, policy, head = bridge.load_checkpoint(exported_folder, torch.float32, "cpu")
    return bridge.Moondream(config, policy), bridge.RefinementHead(config, head)


def test_greedy_decoding_equals_ours_at_tiny_size(ours, exported):
    model, _ = exported
    crops, tiling = bridge.make_crops(ours.image, model.config["vision"])
    assert tiling == (1, 2)
    prompt = bridge.prompt_tokens(PHRASE, ours.vocabulary.tokenizer, model.config["paths"])
    seen = []
    spied = bridge.Moondream(model.config, bridge.Weights(model.text.tensors))
    spied.logits = lambda row: seen.append((model.logits(row), *model.region_logits(row))) or seen[-1][0]
    completion = spied.segment(spied.embed_image(crops, tiling), prompt, BUDGET)
    tokens = [token for token, _ in completion]
    assert tokens == ours.decoded.token_ids[0, : ours.decoded.lengths[0]].tolist()
    assert {5, 6} < set(tokens), "the run must feed coordinates and sizes back"
    expected = ours.values[0, : len(tokens)]
    np.testing.assert_allclose([value for _, value in completion], expected, atol=1e-6)
    for got, logits in zip(zip(*seen), ours.logits):
        np.testing.assert_allclose(torch.stack(got), logits[0, : len(tokens)], rtol=0, atol=1e-4)


def test_refiner_equals_ours_at_tiny_size(ours, exported):
    model, head = exported
    final, early = model.encode_crops(ours.crop[None])
    mask = tensor(ours.mask)
    for step in range(model.config["refiner_iters"]):
        logits, iou = head(final, early, mask[None, None])
        np.testing.assert_allclose(logits, ours.refined.logits[step], rtol=0, atol=1e-4)
        np.testing.assert_allclose(iou, ours.refined.iou[step], rtol=0, atol=1e-4)
        mask = logits[0, int(iou[0].argmax())].sigmoid()
    np.testing.assert_allclose(mask, ours.refined.masks[-1, 0], rtol=0, atol=1e-4)


def test_decoding_ends_with_the_end_of_the_text(exported):
    model, _ = exported
    certain = dict(model.text.tensors)
    certain["text.lm_head.bias"] = certain["text.lm_head.bias"].clone()
    certain["text.lm_head.bias"][model.eos] += 1e4
    image = torch.zeros(64, certain["text.wte"].shape[1])
    assert bridge.Moondream(model.config, bridge.Weights(certain)).segment(image, [1, 21, 2, 3], 9) == [(0, (0.0, 0.0))]


def test_half_precision_stays_near_single(exported):
    model, _ = exported
    half = bridge.Moondream(
        model.config, bridge.Weights({name: x.to(torch.bfloat16) for name, x in model.text.tensors.items()})
    )  # fmt: skip
    rows, prefix = torch.randn(70, 96, generator=torch.Generator().manual_seed(0)), 65
    exact = model.logits(model.run(rows, new_cache(model, 70), 0, prefix))
    near = half.logits(half.run(rows.bfloat16(), new_cache(half, 70), 0, prefix))
    assert near.dtype == torch.float32
    assert (near - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_decoding_under_the_grammar_equals_ours(ours, exported):
    model, _ = exported
    tokenizer, paths = ours.vocabulary.tokenizer, model.config["paths"]
    grammar = bridge.Polygons(model, tokenizer, paths["coordinate_step"])
    image = model.embed_image(*bridge.make_crops(ours.image, model.config["vision"]))
    prompt = bridge.prompt_tokens(PHRASE, tokenizer, paths)
    tokens = [token for token, _ in model.segment(image, prompt, paths["max_new_tokens"], grammar)]
    assert tokens == ours.polygons.token_ids[0, : ours.polygons.lengths[0]].tolist()


def test_command_line_writes_path_and_refined_mask(ours, exported_folder, tmp_path, monkeypatch, capsys):
    Image.fromarray(ours.image).save(tmp_path / "image.png")
    command = ["pytorch_inference.py", str(exported_folder), str(tmp_path / "image.png"), PHRASE, "--grammar"]
    outputs = ["-o", str(tmp_path / "path.svg"), "-o", str(tmp_path / "mask.png")]
    # The path of a random policy has no area.
    monkeypatch.setattr(bridge, "outlines", lambda commands: [np.array([[0.2, 0.2], [0.9, 0.3], [0.5, 0.9]])])
    monkeypatch.setattr("sys.argv", [*command, "--device", "cpu", *outputs])
    bridge.main()
    answer = json.loads(capsys.readouterr().out)
    drawn = [(token, (0.0, 0.0)) for token in ours.polygons.token_ids[0, : ours.polygons.lengths[0]].tolist()]
    assert answer["path"] == bridge.path_text(bridge.read_path(drawn, ours.vocabulary.tokenizer))
    assert f'<path d="{answer["path"]}"' in (tmp_path / "path.svg").read_text()
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == ours.image.shape[:2]
    assert answer["mask"] == "refined"
    assert set(np.unique(mask)) == {0, 255}


def test_command_line_names_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pytorch_inference.py", str(tmp_path), "image.png", PHRASE, "-o", "out.svg"])
    with pytest.raises(SystemExit, match="2"):
        bridge.main()
    assert f"No such file or directory: '{tmp_path / 'config.json'}'" in capsys.readouterr().err
