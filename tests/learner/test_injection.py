"""Traced paths beside hopeless groups: where they come, what they weigh, and what they must leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.advantages import injected_advantages
from moonseg_jax.learner.forward import completion_logits
from moonseg_jax.learner.injection import make_injection, writable
from moonseg_jax.learner.policy import make_policy_step, rollout_statistics
from moonseg_jax.learner.policy_loss import policy_loss
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.state import init_state
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rollout.score import NEAR_BOUNDARY
from moonseg_jax.sharding import make_mesh
from moonseg_jax.types import INJECTED, SAMPLED, Rollouts, Routing, Scored

POLICY, GROUP, BELOW = micro_policy(), 3, 0.1
ROWS = [scenes(2)[0].examples[:2], scenes(2)[1].examples[:1]]
BATCH, TARGETS = prompt_batch(ROWS, POLICY.layout(2)), target_batch(ROWS, POLICY.layout(2))
REWARD = RewardSpec(terms=(WeightedTerm(term="iou", weight=2.0),))
IOU = np.array([[0.0, 0.0, 0.0], [0.05, 0.3, 0.0], [0.05, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
"""Hopeless and flat; one good sample; hopeless, not flat; padding."""
TAKEN = [0, 2]


@functools.cache
def rolled():
    """Targets of other prompts as samples, with experts recorded at random, and the scores of `IOU`."""
    text, paths, rng = POLICY.config.text, POLICY.config.paths, np.random.default_rng(0)
    other = np.array([[1, 2, 1], [0, 2, 0], [0, 1, 0], [3, 3, 3]]).reshape(-1)
    ids, bins, lengths = (leaf.reshape(4, *leaf.shape[2:])[other] for leaf in jax.tree.leaves(TARGETS))

    def experts(*shape: int) -> np.ndarray:
        draws = rng.random((text.layers - text.dense_layers, *shape, text.experts))
        return draws.argsort(axis=-1)[..., : text.active_experts].astype(np.int16)

    routing = Routing(
        image=experts(2, POLICY.config.prefix_tokens), prompt=experts(4, paths.max_prompt_tokens),
        completion=experts(12, paths.max_new_tokens),
    )  # fmt: skip
    rollouts = Rollouts(
        token_ids=ids, bins=bins, log_probs=-rng.random(ids.shape).astype(np.float32), lengths=lengths,
        budgets=np.full(12, paths.max_new_tokens, np.int32), finish=np.zeros(12, np.int32), experts=routing,
    )  # fmt: skip
    terms = {one.label: IOU.reshape(-1) for one in (*REWARD.terms, NEAR_BOUNDARY)}
    return rollouts, Scored(iou=IOU.reshape(-1), reward=2 * IOU.reshape(-1), terms=terms)


@functools.cache
def injected():
    made = make_injection(POLICY, below=BELOW, reward=REWARD)
    inputs = (micro_params(), BATCH, TARGETS, *rolled(), 0)
    return jax.device_get(compile_quickly(made, *inputs)(*inputs))


def grouped(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(4, GROUP + 1, *rows.shape[1:])


def test_hopeless_groups_get_their_traced_path_and_no_others():
    rollouts, scored, sums = injected()
    assert sums["injected"] == (2, 1) and sums["hopeless_groups"] == (2, 3)
    lengths = np.where(np.isin(np.arange(4), TAKEN), TARGETS.lengths.reshape(-1), 0)
    np.testing.assert_array_equal(grouped(rollouts.lengths)[:, -1], lengths)
    np.testing.assert_array_equal(grouped(rollouts.token_ids)[TAKEN, -1], TARGETS.token_ids.reshape(4, -1)[TAKEN])
    np.testing.assert_array_equal(grouped(rollouts.bins)[TAKEN, -1], TARGETS.bins.reshape(4, -1, 2)[TAKEN])
    np.testing.assert_array_equal(grouped(rollouts.source), [[SAMPLED] * GROUP + [INJECTED]] * 4)
    assert not grouped(rollouts.log_probs)[:, -1].any(), "a behaviour without choice"
    iou = grouped(scored.iou)[TAKEN, -1]
    assert (iou > 0.6).all()
    np.testing.assert_allclose(grouped(scored.reward)[TAKEN, -1], 2 * iou, rtol=1e-6)


def test_samples_stay_what_they_were():
    before, (after, scored, _) = rolled()[0], injected()
    for name in ("token_ids", "bins", "log_probs", "lengths", "finish", "budgets"):
        kept = grouped(getattr(after, name))[:, :-1]
        np.testing.assert_array_equal(kept.reshape(np.shape(getattr(before, name))), getattr(before, name))
    np.testing.assert_array_equal(grouped(scored.iou)[:, :-1], IOU)
    layers = after.experts.completion.shape[0]
    kept = after.experts.completion.reshape(layers, 4, GROUP + 1, *after.experts.completion.shape[2:])[:, :, :-1]
    np.testing.assert_array_equal(kept.reshape(before.experts.completion.shape), before.experts.completion)


def test_injected_rows_replay_the_experts_that_the_policy_itself_would_choose():
    """The prompts are replayed as recorded; what is chosen for the path itself is what routing it anew gives."""
    found = injected()[0].experts.completion
    found = found.reshape(found.shape[0], 4, GROUP + 1, *found.shape[2:])[:, TAKEN, -1]
    ids, bins = TARGETS.token_ids.reshape(4, -1), TARGETS.bins.reshape(4, -1, 2)
    routed = jax.jit(functools.partial(completion_logits, POLICY.model), compiler_options=QUICK)
    anew = np.asarray(routed(micro_params(), BATCH, ids, bins).experts)[:, TAKEN]
    for place, group in enumerate(TAKEN):
        length = int(TARGETS.lengths.reshape(-1)[group]) - 1
        np.testing.assert_array_equal(found[:, place, :length], anew[:, place, :length])


def test_one_device_is_a_mesh_of_one():
    made = make_injection(POLICY, below=BELOW, reward=REWARD, mesh=make_mesh(jax.devices()[:1]))
    inputs = (micro_params(), BATCH, TARGETS, *rolled(), 0)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(compile_quickly(made, *inputs)(*inputs)), injected())


def test_without_a_threshold_everything_is_handed_through():
    rollouts, scored = rolled()
    given, paid, sums = make_injection(POLICY, below=0.0, reward=REWARD)(None, BATCH, TARGETS, rollouts, scored, 0)
    assert given is rollouts and paid is scored and sums == {}
    assert given.source is None


def test_what_the_grammar_cannot_write_is_not_injected():
    """Targets are legal; EOS alone is not under this grammar, nor is a path beyond its budget."""
    ids = TARGETS.token_ids.reshape(4, -1)[[0, 0, 0]]
    length = int(TARGETS.lengths[0, 0])
    ids[1] = POLICY.config.paths.eos
    given = Rollouts(
        token_ids=ids, bins=np.zeros((*ids.shape, 2), int), log_probs=np.zeros(ids.shape),
        lengths=np.array([length, 1, length]), budgets=np.array([24, 24, length - 1]), finish=np.zeros(3, int),
        experts=None,
    )  # fmt: skip
    assert jax.jit(functools.partial(writable, POLICY.grammar))(given).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        ("leave-one-out", "none", 0.85),  # .9 - (0 + 0 + .1 + .1) / 4
        ("group-mean", "none", 0.85),
        ("none", "none", 0.9),
        # Of 0, 0, .1, .1, .9: mean .22, squares .0484 × 2 + .0144 × 2 + .4624 = .588, over 5 .1176.
        ("group-mean", "group-std", 0.85 / np.sqrt(0.1176)),
        # Of ∓.05 × 4 and .85: mean .17, squares .0484 × 2 + .0144 × 2 + .4624 = .588 again.
        ("group-mean", "batch-std", 0.85 / np.sqrt(0.1176)),
    ],
)
def test_a_given_path_is_compared_with_the_samples_alone(baseline, scale, expected):
    reward = np.array([[0.0, 0.0, 0.1, 0.1, 0.9]], np.float32)
    own = np.array([[True] * 4 + [False]])
    found = injected_advantages(reward, own, own, ~own, baseline=baseline, scale=scale)
    np.testing.assert_allclose(found, [[0, 0, 0, 0, expected]], rtol=1e-5)


@pytest.mark.parametrize("scale", ["none", "group-std", "batch-std"])
def test_it_teaches_where_all_samples_missed_alike(scale):
    """Rewards 0, 0, 0, 0 and 1: the spread is that of all five, .4."""
    reward, own = np.array([[0, 0, 0, 0, 1]], np.float32), np.array([[True] * 4 + [False]])
    found = injected_advantages(reward, own & False, own, ~own, baseline="leave-one-out", scale=scale)
    assert found[0, -1] == pytest.approx({"none": 1.0, "group-std": 2.5, "batch-std": 2.5}[scale])


@pytest.mark.parametrize(
    ("ratio", "cap", "old"),
    [("token", None, [0.0, 0.0]), ("token", 2.0, np.log([0.27, 0.55])), ("none", 2.0, [0.0] * 2)],
)
def test_its_tokens_weigh_as_much_as_the_policy_believes_in_them(ratio, cap, old):
    """Advantage 2 and probabilities .3 and .6: gradients -.6 and -1.2, with or without staleness."""
    now, behaviour = jnp.log(jnp.array([[0.3, 0.6]])), jnp.zeros((1, 2))
    clip = None if ratio == "none" else 0.2

    def loss(log_probs):
        return policy_loss(
            log_probs, jnp.array([old], jnp.float32), jnp.array([2.0]), jnp.ones((1, 2), bool), ratio=ratio,
            clip_low=clip, clip_high=clip, aggregation="fixed-length", behaviour_log_probs=behaviour,
            correction_cap=cap, sampled=jnp.zeros(1, bool),
        ).loss[0]  # fmt: skip

    np.testing.assert_allclose(jax.grad(loss)(now), [[-0.6, -1.2]], rtol=1e-5)


def test_figures_kl_and_entropy_are_of_samples_alone():
    """A given row beside a sampled one changes the surrogate and no figure."""
    now, learned = jnp.log(jnp.array([[0.5, 0.4], [0.3, 0.6]])), jnp.ones((2, 2), bool)
    settings = {
        "ratio": "token", "clip_low": 0.2, "clip_high": 0.2, "aggregation": "token-mean", "kl_weight": 0.3,
        "entropy_weight": 0.1,
    }  # fmt: skip

    def found(rows, sampled):
        old = jnp.array([[np.log(0.45)] * 2, [0.0] * 2])
        return policy_loss(
            now[:rows], old[:rows], jnp.array([1.0, 2.0])[:rows], learned[:rows],
            reference_log_probs=jnp.full((rows, 2), -1.0), entropy=jnp.full((rows, 2), 0.7),
            sampled=jnp.array(sampled), **settings,
        )  # fmt: skip

    alone, both = found(1, [True]), found(2, [True, False])
    for name in ("clipped", "mismatch_kl", "importance", "reference_kl", "entropy"):
        np.testing.assert_allclose(getattr(both, name), getattr(alone, name), rtol=1e-6, err_msg=name)
    assert both.loss[0] - alone.loss[0] == pytest.approx(-2 * (0.3 + 0.6), rel=1e-5)


def test_a_step_rescues_a_hopeless_group_and_the_figures_stay_those_of_the_samples():
    step = make_policy_step(
        POLICY.model, POLICY.grammar, POLICY.tables, optax.sgd(0.05), loss=PolicyLossConfig(), temperature=1.0,
        supervised_weight=0.0, average_decay=0.5,
    )  # fmt: skip
    rollouts, scored, _ = injected()
    rollouts = rollouts.replace(experts=None)

    def inputs(given):
        state = init_state(jax.tree.map(jnp.array, {"policy": micro_params()}), optax.sgd(0.05))
        return state, None, BATCH, TARGETS, given, scored

    nothing = rollouts.replace(lengths=np.where(rollouts.source == INJECTED, 0, rollouts.lengths))
    compiled = compile_quickly(step, *inputs(rollouts))
    (plain, figures), (rescued, sums) = compiled(*inputs(nothing)), compiled(*inputs(rollouts))
    for name in ("flat_groups", "entropy", "mismatch_kl", "effective_sample_size", "clip_fraction"):
        np.testing.assert_allclose(sums[name], figures[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(sums["flat_groups"], (1, 3))
    assert (figures["policy_loss"][1], sums["policy_loss"][1]) == (6, 8)

    statistics = functools.partial(rollout_statistics, POLICY.model, POLICY.grammar, temperature=1.0)
    learner = jax.jit(lambda params: statistics(params, BATCH, rollouts).log_probs, compiler_options=QUICK)
    flat = grouped(rollouts.lengths)[0, -1]

    def probability(state):
        """Mean over the tokens of the path put beside the flat group, which teaches nothing else."""
        return np.exp(learner(state.params["policy"])[GROUP, :flat]).mean()

    assert probability(rescued) > probability(plain) + 1e-4
