"""What a fixture expects of the policy: vision, text, greedy and forced runs, spatial references, region heads."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fixture_model import Fixture
from official_decoding import decode_unconstrained

from moonseg_jax.config import ModelConfig
from moonseg_jax.images import axis_stitching, stitching_weights
from moonseg_jax.model.attention import prefix_mask
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.paths.boxes import coordinate_from_bin, size_from_bin
from moonseg_jax.paths.vocabulary import reference_tokens
from moonseg_jax.types import PromptBatch

PREFIX = 3
"""Prompt tokens before the spatial references."""
GREEDY_STEPS = 12
FREE = -1
"""No token to follow."""
ROW_STRIDE = 4
"""Values of single layers are recorded for every fourth row."""
LAST_ROWS = 12
"""Rows of the variant with the exact GELU."""

Arrays = dict[str, np.ndarray]
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Options of XLA that make compiling four times faster and running slower."""

decode = jax.jit(decode_unconstrained, static_argnums=(0, 3), compiler_options=QUICK)


@functools.partial(jax.jit, static_argnames=("config", "method", "prefix"), compiler_options=QUICK)
def run(config: ModelConfig, method: Any, params: Any, *args: Any, prefix: int | None = None) -> Any:
    """A method of the model, or a function of it; `prefix` is the one static argument that any takes."""
    static = {} if prefix is None else {"prefix": prefix}
    return Moondream(config).apply({"params": params}, *args, method=method, **static)


@functools.partial(jax.jit, static_argnames=("config", "prefix"), compiler_options=QUICK)
def run_with_layers(config: ModelConfig, params: Any, embedded: Any, prefix: int) -> Any:
    """`full_pass` with what every module of the decoder's blocks gave."""
    return Moondream(config).apply(
        {"params": params}, embedded, prefix, method="full_pass", capture_intermediates=True, mutable=["intermediates"]
    )


def pool(model: Moondream, *args: Any) -> Any:
    return model.vision.pool(*args)


def project(model: Moondream, *args: Any) -> Any:
    return model.vision.project(*args)


def embed_coordinate(model: Moondream, values: Any) -> Any:
    return model.region.embed_coordinate(values)


def embed_size(model: Moondream, values: Any) -> Any:
    return model.region.embed_size(values)


def region_logits(model: Moondream, hidden: Any) -> Any:
    return model.region(hidden)


def tiling_of(fixture: Fixture, case: str) -> tuple[int, int]:
    """Rows and columns of tiles."""
    rows, cols = (int(count) for count in fixture.inputs[f"{case}/tiling"])
    return rows, cols


def before_the_last_norm(fixture: Fixture) -> Arrays:
    """What the last block of the encoder gave: the early features of a refiner that reads them there."""
    config = with_last_early_layer(fixture.config)
    _, last = run(config, "encode_crops", fixture.params, fixture.inputs["vision0/crops"][:2])
    return {"vision0/prenorm": np.asarray(last)}


def with_last_early_layer(config: ModelConfig) -> ModelConfig:
    """The config whose early features are the last block's, before the final norm."""
    return dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, early_layer=config.vision.layers - 1)
    )  # fmt: skip


def vision(fixture: Fixture, case: str) -> Arrays:
    """Features, stitched, pooled and projected ones of `vision0` or `vision1`."""
    config, params = fixture.config, fixture.params
    crops, tiling = fixture.inputs[f"{case}/crops"], tiling_of(fixture, case)
    features, early = run(config, "encode_crops", params, crops)
    weights = [part[None] for part in stitching_weights(tiling, config.vision, len(crops))]
    grid = config.vision.grid
    tiles = np.asarray(features)[1:].reshape(*tiling, grid, grid, -1)
    rows, cols = (axis_stitching(count, config.vision) for count in tiling)
    outputs = {
        "features": features,
        "early": early[:2],
        "reconstructed": np.einsum("iya,jxb,ijabw->yxw", rows, cols, tiles),
        "pooled": run(config, pool, params, features[None], *weights)[0],
        "projected": run(config, project, params, features[None], *weights)[0],
    }
    return {f"{case}/{name}": np.asarray(value) for name, value in outputs.items()}


def text(fixture: Fixture, image: np.ndarray) -> Arrays:
    """The full pass over BOS, image and prompt, its exact-GELU variant, and a sequence without image."""
    config, params, prompt = fixture.config, fixture.params, fixture.inputs["text/prompt_ids"]
    embedded, prefix = embed_sequence(fixture, image, prompt), config.prefix_tokens
    hidden, seen = run_with_layers(config, params, embedded, prefix)
    exact = dataclasses.replace(config, text=dataclasses.replace(config.text, tau_gelu="exact"))
    rows = run(exact, "full_pass", params, embedded, prefix=prefix)[0, -LAST_ROWS:]
    ids = fixture.inputs["textonly/ids"]
    alone = run(config, "embed", params, ids[None], no_values(ids))
    without_image = run(config, "full_pass", params, alone, prefix=0)[0]
    return {
        "text/hidden": np.asarray(hidden[0]),
        "text/logits": token_logits(fixture, hidden[0]),
        "text/logits_tau_erf_last12": token_logits(fixture, rows),
        "textonly/logits": token_logits(fixture, without_image),
        "misc/prefix_mask": np.asarray(prefix_mask(config.prefix_tokens + 5, config.prefix_tokens), np.uint8),
        **layers(config, seen["intermediates"]["text"]),
    }


def layers(config: ModelConfig, seen: Any) -> Arrays:
    """Hidden rows after every block, the parts of the first of either kind, and what the routers said.

    Nothing where there are no routed blocks.
    """
    dense, routed, first = seen["dense"], seen["routed"], config.text.dense_layers
    if first == config.text.layers:
        return {}
    blocks = [stack["__call__"][0][0][:, 0, ::ROW_STRIDE] for stack in (dense, routed)]
    router = routed["moe"]["router"]["__call__"][0]
    mixed, chosen = routed["moe"]["__call__"][0]
    chosen = chosen[:, 0]
    weights = jax.nn.softmax(jnp.take_along_axis(router, chosen, axis=-1))
    parts = {
        "text/layer0_attn": dense["attn"]["__call__"][0][0],
        "text/layer0_mlp": dense["mlp"]["__call__"][0],
        f"text/layer{first}_attn": routed["attn"]["__call__"][0][0],
        f"text/layer{first}_mlp": mixed,
    }
    return {
        **{f"{name}_every{ROW_STRIDE}": np.asarray(part[0, 0, ::ROW_STRIDE]) for name, part in parts.items()},
        "text/layer_hidden_every4": np.concatenate(blocks),
        "text/router_logits": np.asarray(router),
        "text/router_topk_idx": np.asarray(chosen),
        "text/router_topk_weight": np.asarray(weights),
    }


def embed_sequence(fixture: Fixture, image: np.ndarray, prompt: np.ndarray, values: np.ndarray | None = None) -> Any:
    """Input embeddings [1, T, D] of BOS, an image and a prompt."""
    bos = np.array([[fixture.config.paths.bos]])
    start = run(fixture.config, "embed", fixture.params, bos, no_values(bos[0]))
    values = no_values(prompt) if values is None else values[None]
    rest = run(fixture.config, "embed", fixture.params, prompt[None], values)
    return jnp.concatenate([start, image[None], rest], axis=1)


def no_values(token_ids: np.ndarray) -> np.ndarray:
    return np.zeros((1, len(token_ids), 2), np.float32)


def token_logits(fixture: Fixture, hidden: Any) -> np.ndarray:
    return np.asarray(run(fixture.config, "heads", fixture.params, hidden).token)


def prompt_batch(fixture: Fixture, rows: int) -> PromptBatch:
    """The image of `vision0` with its prompt, repeated."""
    config, prompt = fixture.config, fixture.inputs["text/prompt_ids"]
    crops = fixture.inputs["vision0/crops"]
    stitch_rows, stitch_cols = stitching_weights(tiling_of(fixture, "vision0"), config.vision, len(crops))
    fields: dict[str, Any] = {
        "crops": crops[None], "stitch_rows": stitch_rows[None], "stitch_cols": stitch_cols[None],
        "prompt_ids": np.broadcast_to(prompt.astype(np.int32), (1, rows, len(prompt))),
        "prompt_values": np.zeros((1, rows, len(prompt), 2), np.float32),
        "prompt_lengths": np.full((1, rows), len(prompt)), "ground_truth": np.zeros((1, rows, 1, 1), bool),
        "example_ids": np.zeros((1, rows), np.int32), "valid": np.ones((1, rows), bool),
    }  # fmt: skip
    return PromptBatch(**fields)


def decoding(fixture: Fixture) -> Arrays:
    """The free run and the forced one over a cache, side by side."""
    params, region, given = fixture.params, fixture.config.region, fixture.inputs["forced/ids"]
    tokens = np.full((2, max(GREEDY_STEPS, len(given))), FREE, np.int32)
    tokens[1, : len(given)] = given
    decoded = decode(Moondream(fixture.config), params, prompt_batch(fixture, 2), tokens.shape[1], tokens)
    free_rows, forced_rows = (0, slice(min(int(decoded.lengths[0]), GREEDY_STEPS))), (1, slice(len(given)))
    coord = np.argmax(decoded.logits.coord[forced_rows], axis=-1)
    width, height = np.argmax(decoded.logits.size[forced_rows], axis=-1).T
    next_input = run(fixture.config, "embed", params, decoded.token_ids, decoded.values)
    outputs = {
        "greedy/ids": decoded.token_ids[free_rows],
        "greedy/logits": decoded.logits.token[free_rows],
        "forced/logits": decoded.logits.token[forced_rows],
        "forced/hidden": decoded.hidden[forced_rows],
        "forced/embed": next_input[forced_rows],
        "forced/coord_bin": coord,
        "forced/width_bin": width,
        "forced/height_bin": height,
        "forced/coord": coordinate_from_bin(coord, region),
        "forced/width": size_from_bin(width, region),
        "forced/height": size_from_bin(height, region),
    }
    return {name: np.asarray(value) for name, value in outputs.items()}


def spatial_references(fixture: Fixture, image: np.ndarray) -> Arrays:
    """Logits at the end of a prompt with a point and a box after its prefix."""
    prompt, paths = fixture.inputs["text/prompt_ids"], fixture.config.paths
    tokens = [(int(token), 0.0, 0.0) for token in prompt]
    references = [reference_of(row.astype(np.float64)) for row in fixture.inputs["spatialref/refs"]]
    tokens[PREFIX:PREFIX] = [token for reference in references for token in reference_tokens(reference, paths)]
    ids = np.array([token for token, _, _ in tokens])
    values = np.array([rest for _, *rest in tokens], np.float32)
    embedded = embed_sequence(fixture, image, ids, values)
    hidden = run(fixture.config, "full_pass", fixture.params, embedded, prefix=fixture.config.prefix_tokens)
    return {
        "spatialref/prompt_embeds": np.asarray(embedded[0, fixture.config.prefix_tokens :]),
        "spatialref/logits": token_logits(fixture, hidden[0, -1]),
    }


def reference_of(row: np.ndarray) -> tuple[float, ...]:
    """(x, y), or (cx, cy, w, h), of a row that is a point with -1, -1 after it or the corners of a box."""
    x0, y0, x1, y1 = (float(value) for value in row)
    return (x0, y0) if x1 < 0 else ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)


def region(fixture: Fixture) -> Arrays:
    """Embeddings of coordinates and sizes, logits of hidden rows, and the values of all bins."""
    config, params, inputs = fixture.config, fixture.params, fixture.inputs
    plain = dataclasses.replace(config, region=dataclasses.replace(config.region, layer_norm=False))
    older = dataclasses.replace(config.region, coord_top="bins")
    coord, size = run(config, region_logits, params, inputs["region/hidden"])
    outputs = {
        "coord_embeds": run(config, embed_coordinate, params, inputs["region/coords"][:, 0]),
        "size_embeds": run(config, embed_size, params, inputs["region/sizes"]),
        "coord_logits": coord,
        "width_logits": size[:, 0],
        "height_logits": size[:, 1],
        "coord_logits_without_ln": run(plain, region_logits, params, inputs["region/hidden"])[0],
        "coord_lut": coordinate_from_bin(np.arange(config.region.coord_bins), config.region),
        "coord_lut_hf": coordinate_from_bin(np.arange(config.region.coord_bins), older),
        "size_lut": size_from_bin(np.arange(config.region.size_bins), config.region),
    }
    return {f"region/{name}": np.asarray(value) for name, value in outputs.items()}


def quantised(fixture: Fixture, image: np.ndarray) -> Arrays:
    """Logits at the end of the prompt with experts from an FP8 checkpoint; nothing where there are no experts."""
    params, prefix = fixture.fp8_params, fixture.config.prefix_tokens
    if fixture.config.text.dense_layers == fixture.config.text.layers:
        return {}
    embedded = embed_sequence(fixture, image, fixture.inputs["text/prompt_ids"])
    hidden, _ = run_with_layers(fixture.config, params, embedded, prefix)
    return {
        "fp8/up_dequant_expert0": np.asarray(params["text"]["routed"]["moe"]["up"][0, 0].T),
        "fp8/logits_last": token_logits(fixture, hidden[0, -1]),
    }
