"""Completions written by hand → the reward at each of their tokens, on a raster of 48 x 48."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny_models import QUICK, compile_quickly, micro, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.score import read_paths, score
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.rollout.token_credit import with_token_reward
from moonseg_jax.sharding import make_mesh
from moonseg_jax.types import FINISH_BUDGET, FINISH_CLOSED, FINISH_INVALID, Rollouts

CONFIG = micro()
PATHS, TOKENS, SIDE = CONFIG.paths, CONFIG.paths.max_new_tokens, CONFIG.paths.raster
POLICY = micro_policy()
SQUARE, HOLE = "M 0 0 960 0 960 960 0 960 Z", "M 240 240 240 720 720 720 720 240 Z"
LEFT, RIGHT = "M 0 0 480 0 480 960 0 960 Z", "M 480 0 960 0 960 960 480 960 Z"
FIRST, SECOND = 12, 22
"""Tokens at which the first and the second of two such subpaths close; 23 is the EOS."""
PRICED = RewardSpec(
    terms=(
        WeightedTerm(term="iou"),
        WeightedTerm(term="tokens", weight=((0, 0), (10, 1)), parameters={"full": 100}),
        WeightedTerm(term="validity", parameters={"out_of_budget": 0.5}),
    )
)
"""Raw IoU for proper paths at step 0; later, tokens have a price, at step 10 of .01 each."""


def rollouts(*paths: str, finish=FINISH_CLOSED) -> Rollouts:
    """Paths in a box as large as the image, a word a token."""
    vocabulary = POLICY.vocabulary
    word = dict(zip(map(str, vocabulary.integers.tolist()), vocabulary.integer_ids.tolist()))
    word |= {**vocabulary.command_ids, "end": PATHS.eos}
    token_ids, bins = np.full((len(paths), TOKENS), PATHS.eos), np.zeros((len(paths), TOKENS, 2), int)
    bins[:, :3] = (16, 0), (16, 0), (40, 40)
    token_ids[:, :3] = PATHS.coord_token, PATHS.coord_token, PATHS.size_token
    for row, path in enumerate(paths):
        token_ids[row, 3 : 3 + len(path.split())] = [word[one] for one in path.split()]
    return Rollouts(
        token_ids=token_ids, bins=bins, log_probs=np.zeros(token_ids.shape), experts=None,
        lengths=np.array([3 + len(path.split()) for path in paths]), budgets=np.full(len(paths), TOKENS),
        finish=np.full(len(paths), finish),
    )  # fmt: skip


@functools.partial(jax.jit, compiler_options=QUICK)
def judge(given, truth, step):
    drawn, references = read_paths(CONFIG, POLICY.tables, given), jnp.full(len(truth), 14)
    scored = score(given, drawn, truth, references, PRICED, step)
    return with_token_reward(scored, given, drawn, POLICY.tables, truth, references, PRICED, step)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


FRAME, LEFT_HALF = rectangle(0, 0, 48, 48) & ~rectangle(12, 12, 36, 36), rectangle(0, 0, 24, 48)


def placed(token_reward, row: int) -> dict[int, float]:
    """Tokens that earn something → what they earn."""
    return {int(at): round(float(token_reward[row, at]), 6) for at in np.flatnonzero(np.abs(token_reward[row]) > 1e-6)}


def test_each_subpath_earns_what_it_adds():
    """The square has 3/4 of its own, the hole the rest; the right half of a square takes back a half."""
    given = rollouts(f"{SQUARE} {HOLE} end", f"{SQUARE} end", f"{LEFT} {RIGHT} end", f"{LEFT} end")
    found = jax.device_get(judge(given, np.stack([FRAME, LEFT_HALF]), 0))
    assert [placed(found.token_reward, row) for row in range(4)] == [
        {FIRST: 0.75, SECOND: 0.25}, {FIRST: 0.75}, {FIRST: 1.0, SECOND: -0.5}, {FIRST: 1.0},
    ]  # fmt: skip
    np.testing.assert_array_equal(found.token_reward[:, FIRST], [0.75, 0.75, 1, 1])
    np.testing.assert_allclose(found.reward, [1, 0.75, 0.5, 1], atol=1e-6)


def test_a_prefix_costs_the_tokens_it_would_have_had_at_the_weights_of_the_step():
    """At step 5 a token costs .005: 14 tokens of the square alone .07, and the hole's 10 more .05."""
    given = rollouts(f"{SQUARE} {HOLE} end", f"{SQUARE} end", f"{LEFT} {RIGHT} end", f"{LEFT} end")
    found = jax.device_get(judge(given, np.stack([FRAME, LEFT_HALF]), 5))
    assert placed(found.token_reward, 0) == {FIRST: 0.68, SECOND: 0.2}
    assert placed(found.token_reward, 2) == {FIRST: 0.93, SECOND: -0.55}


def test_what_comes_of_not_ending_well_is_paid_at_the_last_token():
    """Out of budget within a second subpath, which is drawn although open, after a whole one, and right at a `Z`;
    a prefix counts as ended."""
    given = rollouts(f"{SQUARE} M 0 0", f"{SQUARE} M", SQUARE, f"{SQUARE} end", finish=FINISH_BUDGET)
    found = jax.device_get(judge(given, np.stack([FRAME, FRAME]), 0))
    assert [placed(found.token_reward, row) for row in range(4)] == [
        {FIRST: 0.75, 15: -0.5}, {FIRST: 0.75, 13: -0.5}, {FIRST: 0.25}, {FIRST: 0.75, 13: -0.5},
    ]  # fmt: skip


def test_an_empty_answer_is_paid_at_its_end_and_a_row_without_tokens_nowhere():
    given = rollouts("end", f"{SQUARE} end", f"{SQUARE} end", f"{SQUARE} end")
    given = given.replace(lengths=np.array([4, 14, 0, 14]))
    found = jax.device_get(judge(given, np.stack([rectangle(0, 0, 0, 0), FRAME]), 0))
    assert [placed(found.token_reward, row) for row in range(4)] == [{3: 1.0}, {}, {}, {FIRST: 0.75}]


def test_increments_of_many_paths_are_those_of_scoring_each_prefix_as_a_path_of_its_own():
    """More prefixes than are judged at once; the last paths end in an illegal token. Two programs may round a pixel
    that is half covered differently, which is worth .001 here."""
    rng = np.random.default_rng(0)
    outlines = ["M " + " ".join(map(str, rng.choice(POLICY.vocabulary.integers, 8))) + " Z" for _ in range(40)]
    both, alone = (rollouts(*(f"{path} end" for path in paths)) for paths in (
        [f"{one} {two}" for one, two in zip(outlines, outlines[::-1])], outlines,
    ))  # fmt: skip
    both = both.replace(finish=np.where(np.arange(40) < 36, FINISH_CLOSED, FINISH_INVALID))
    truth = np.stack([FRAME, LEFT_HALF])
    found, prefixes = (jax.device_get(judge(given, truth, 5)) for given in (both, alone))
    np.testing.assert_allclose(found.token_reward[:, FIRST], prefixes.reward, atol=2e-3)
    np.testing.assert_allclose(found.token_reward.sum(axis=1), found.reward, atol=1e-6)
    np.testing.assert_allclose(found.token_reward[:36, SECOND], (found.reward - prefixes.reward)[:36], atol=2e-3)
    assert (np.abs(found.token_reward[36:, 23]) > 0.1).all() and not found.token_reward[:36, 23].any()
    assert np.ptp(prefixes.reward) > 0.2


def test_sampled_groups_are_paid_by_token_on_a_mesh_as_well():
    layout, group = POLICY.layout(2), 4
    batch = prompt_batch([scene.examples[:2] for scene in scenes(2)], layout)
    # The background is the target: random paths overlap with it.
    batch = batch.replace(ground_truth=~batch.ground_truth)
    made = make_rollout(
        POLICY, Sampling(group=group), reward=PRICED, seed=0, mesh=make_mesh(jax.devices()[:1]), token_credit=True
    )
    given = (micro_params(), batch, np.full((2, 2), 14), 5)
    sampled, scored, _, _ = jax.device_get(compile_quickly(made, *given)(*given))
    np.testing.assert_allclose(scored.token_reward.sum(axis=1), scored.reward, atol=1e-5)
    letters = sampled.token_ids == POLICY.vocabulary.command_ids["Z"]
    assert (letters.sum(axis=1) > 1).sum() > 1, "some paths have several subpaths"
    is_last = np.arange(TOKENS) == sampled.lengths[:, None] - 1
    assert not scored.token_reward[~letters & ~is_last].any()
