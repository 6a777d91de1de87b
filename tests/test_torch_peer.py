"""The PyTorch peer in batches against the PyTorch reader one by one."""

import importlib
import sys

import numpy as np
import pytest
from tiny_models import micro, micro_params, micro_policy

from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.pytorch import export_checkpoint
from moonseg_jax.errors import UserError
from moonseg_jax.weights import save_weights

torch = pytest.importorskip("torch", reason="the peer is PyTorch, which is not installed")

from experiments import pytorch_inference as bridge  # noqa: E402
from moonseg_jax.bench.torch_peer.grammar_tables import GREEDY, draw  # noqa: E402
from moonseg_jax.bench.torch_peer.policy import CroppedImage, Prompt, TorchPolicy  # noqa: E402
from moonseg_jax.bench.torch_peer.rollouts import decode_fixed_batches  # noqa: E402

PHRASES = ("the star", "the topmost blue star", "the small red disc", "the star", "the green square")
IMAGE_OF_PROMPT = (0, 0, 1, 2, 2)
SHORTEST = 12
"""Tokens of the shortest path: box, `M`, three vertices, `Z`, EOS."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The micro policy, exported; its paths differ in length."""
    ours, exported = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("torch") / "exported"
    params = micro_params(seed=2)
    params["text"]["head"]["bias"][micro_policy().vocabulary.command_ids["Z"]] -= 1.0
    save_weights(ours, "policy", params, micro())
    export_checkpoint(ours, exported, naming=Naming.HF)
    return exported


@pytest.fixture(scope="module")
def policy(folder):
    return TorchPolicy.load(folder, micro_policy().grammar)


@pytest.fixture(scope="module")
def images(policy):
    """One that fits a crop and two of several tiles."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((48, 48), (80, 130), (90, 50))]
    cropped = [bridge.make_crops(picture, policy.reader.config["vision"]) for picture in pictures]
    assert [tiling for _, tiling in cropped] == [(1, 1), (1, 2), (2, 1)]
    return [CroppedImage(crops=crops, tiling=tiling) for crops, tiling in cropped]


@pytest.fixture(scope="module")
def prompts():
    """Of different lengths; the last has a box as spatial reference."""
    vocabulary = micro_policy().vocabulary
    boxes = [()] * 4 + [((0.25, 0.5, 0.5, 0.25),)]
    written = [vocabulary.prompt(*said) for said in zip(PHRASES, boxes)]
    assert len({len(ids) for ids, _ in written}) > 2
    return [
        Prompt(image=image, token_ids=ids.tolist(), values=values.tolist())
        for image, (ids, values) in zip(IMAGE_OF_PROMPT, written)
    ]


@pytest.fixture(scope="module")
def polygons(policy):
    return bridge.Polygons(policy.reader, micro_policy().vocabulary.tokenizer, micro().paths.coordinate_step)


def decode(policy, images, prompts, *, group=1, batch=5, budgets=24, temperature=GREEDY, seed=0):
    budgets = np.broadcast_to(budgets, len(prompts) * group).copy()
    return decode_fixed_batches(
        policy, images, prompts, group=group, batch=batch, budgets=budgets, temperature=temperature, seed=seed
    )


def values_of(tokens, bins):
    """What the tokens are fed back with; a coordinate is bin / 32, four size bins are an octave."""
    meant = {5: lambda bins: (bins[0] / 32, 0.0), 6: lambda bins: tuple(2.0 ** (bins / 4 - 10))}
    return [meant.get(token, lambda bins: (0.0, 0.0))(own) for token, own in zip(tokens, bins)]


def test_greedy_batches_equal_the_reader_one_by_one(policy, images, prompts, polygons):
    prompts = prompts[:4]  # The reader takes no spatial references.
    got = decode(policy, images, prompts, batch=4)
    for row, prompt in enumerate(prompts):
        image = images[prompt.image]
        embedded = policy.reader.embed_image(image.crops, image.tiling)
        with torch.inference_mode():
            expected = policy.reader.segment(embedded, prompt.token_ids, 24, polygons)
        tokens = got.token_ids[row, : got.lengths[row]].tolist()
        assert tokens == [token for token, _ in expected]
        fed_back = values_of(tokens, got.bins[row])
        np.testing.assert_allclose(fed_back, [value for _, value in expected], rtol=1e-6)
    assert len(set(got.lengths.tolist())) > 1, "sequences must end at different steps"
    assert len({tuple(tokens) for tokens in got.token_ids.tolist()}) == 4


@torch.inference_mode()
def recomputed(policy, images, prompt, polygons, tokens, bins, budget, temperature):
    """Log-probabilities from one pass of the reader over the whole sequence."""
    reader, image = policy.reader, images[prompt.image]
    fed = [*prompt.token_ids, *tokens[:-1]], [*prompt.values, *values_of(tokens[:-1], bins)]
    bos, embedded = reader.embed([reader.bos], [(0.0, 0.0)]), reader.embed_image(image.crops, image.tiling)
    rows = torch.cat([bos, embedded, reader.embed(*fed)])
    hidden = reader.run(rows, torch.zeros(2, 2, 2, len(rows), 16), 0, 1 + len(embedded))[-len(tokens) :]
    logits, (coord, size) = reader.logits(hidden), reader.region_logits(hidden)
    for step, token in enumerate(tokens):
        legal = polygons.legal(tokens[:step], budget)
        total = (logits[step, legal] / temperature).log_softmax(-1)[legal.index(token)]
        if token == reader.coord:
            total += (coord[step] / temperature).log_softmax(-1)[bins[step, 0]]
        if token == reader.size:
            total += (size[step] / temperature).log_softmax(-1)[[0, 1], bins[step]].sum()
        yield float(total)


def test_stored_log_probabilities_equal_a_pass_over_the_whole_sequence(policy, images, prompts, polygons):
    budgets = np.arange(15) % (25 - SHORTEST) + SHORTEST
    got = decode(policy, images, prompts, group=3, batch=6, budgets=budgets, temperature=0.8)
    for row, (tokens, length, budget) in enumerate(zip(got.token_ids, got.lengths, budgets)):
        sampled = tokens[:length].tolist()
        assert length <= budget and sampled[-1] == 0
        expected = recomputed(policy, images, prompts[row // 3], polygons, sampled, got.bins[row], budget, 0.8)
        np.testing.assert_allclose(got.log_probs[row, :length], list(expected), rtol=0, atol=1e-5)
    assert len({tuple(tokens) for tokens in got.token_ids.tolist()}) > 10, "samples of one prompt differ"


def test_a_batch_runs_until_its_slowest_sequence_has_ended(policy, images, prompts):
    got = decode(policy, images, prompts, group=2, batch=4, temperature=1.0)
    slowest = [got.lengths[:4].max(), got.lengths[4:8].max(), got.lengths[8:].max()]
    assert got.steps == sum(slowest)
    assert got.slot_steps == 4 * slowest[0] + 4 * slowest[1] + 2 * slowest[2]
    assert got.lengths.sum() < got.slot_steps


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_greedy_completions_do_not_depend_on_the_batch(policy, images, prompts, batch):
    together, apart = decode(policy, images, prompts), decode(policy, images, prompts, batch=batch)
    for field in ("token_ids", "bins", "lengths"):
        np.testing.assert_array_equal(getattr(together, field), getattr(apart, field))
    np.testing.assert_allclose(together.log_probs, apart.log_probs, rtol=0, atol=1e-5)


def test_a_budget_below_the_shortest_path_cuts_it(policy, images, prompts):
    got = decode(policy, images, prompts, budgets=np.array([1, 5, 24, SHORTEST, 3]))
    assert got.lengths[[0, 1, 3, 4]].tolist() == [1, 5, SHORTEST, 3]
    assert got.token_ids[:, 0].tolist() == [5] * 5
    assert got.token_ids[1, :3].tolist() == [5, 5, 6]
    for row, length in enumerate(got.lengths):
        for field in (got.token_ids, got.bins, got.log_probs):
            assert not field[row, length:].any()


def test_greedy_samples_of_one_prompt_are_equal_and_draws_follow_the_seed(policy, images, prompts):
    greedy = decode(policy, images, prompts[:2], group=3, batch=6)
    np.testing.assert_array_equal(greedy.token_ids, np.repeat(greedy.token_ids[::3], 3, axis=0))
    first, again, other = (
        decode(policy, images, prompts, temperature=1.0, seed=seed).token_ids for seed in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_both_ways_through_the_experts_agree(policy, images, prompts, monkeypatch):
    routed = policy.decoder.blocks[-1].mlp
    expected = decode(policy, images, prompts)
    assert routed.computes_all
    monkeypatch.setattr(routed, "computes_all", False)
    got = decode(policy, images, prompts)
    np.testing.assert_array_equal(got.token_ids, expected.token_ids)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, rtol=0, atol=1e-5)


def test_half_precision_stays_near_single(folder, policy, images, prompts):
    half = TorchPolicy.load(folder, micro_policy().grammar, dtype="bfloat16")
    exact, near = (decode(which, images, prompts, budgets=1) for which in (policy, half))
    assert exact.log_probs.max() < -1
    np.testing.assert_allclose(near.log_probs, exact.log_probs, rtol=0, atol=0.1)


def test_draws_have_the_frequencies_of_the_softmax_at_the_temperature():
    weights = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    logits = (0.7 * weights.log()).expand(40_000, -1)
    choice, log_prob = draw(logits, 0.7, torch.Generator().manual_seed(0))
    frequencies = choice.bincount(minlength=6) / len(choice)
    np.testing.assert_allclose(frequencies, weights, rtol=0, atol=0.01)
    assert (frequencies[weights == 0] == 0).all()
    np.testing.assert_allclose(log_prob.exp(), weights[choice], rtol=1e-5)


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_farthest_random_numbers_draw_nothing_that_is_forbidden(number, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, number))
    logits = torch.randn(2000, 9, generator=torch.Generator().manual_seed(0))
    logits[:, [0, 1, 7, 8]] = -torch.inf
    choice, log_prob = draw(logits, 1.0, torch.Generator())
    assert set(choice.tolist()) == {6 if number else 2}
    assert log_prob.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": 2, "batch": 5}, "a batch of 5 rows holds no whole groups of 2"),
        ({"budgets": 0}, "the least budget is 0"),
        ({"budgets": 300}, "text.max_context is 256"),
        ({"temperature": -1.0}, "the temperature is -1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(policy, images, prompts, arguments, message):
    with pytest.raises(UserError, match=message):
        decode(policy, images, prompts, **arguments)


def test_nothing_to_decode_is_refused(policy, images):
    with pytest.raises(UserError, match="needs prompts of one token or more"):
        decode(policy, images, [])


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing.*moonseg export"):
        TorchPolicy.load(tmp_path, micro_policy().grammar)


def test_without_pytorch_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("moonseg_jax.bench.torch_peer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"install moonseg-jax\[torch\]"):
        importlib.import_module("moonseg_jax.bench.torch_peer.rollouts")
