"""The weights that come with the package: they speak the language of paths on their own."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.batch import prompt_batch
from moonseg_jax.policy import load_policy
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import GREEDY
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.ship import ASSETS, evaluation
from moonseg_jax.shipped import shipped
from moonseg_jax.types import FINISH_CLOSED

SCENES = 16


@pytest.fixture(scope="module")
def decoders():
    """Greedy decoding with the grammar and without it: (parameters, batch) → completions."""
    policy, _ = load_policy(shipped("sft"))
    greedy = functools.partial(sample, policy.model, keys=None, sampling=Sampling(temperature=GREEDY))
    grammars = (policy.grammar, policy.grammar.unenforced())
    return [jax.jit(functools.partial(greedy, grammar)) for grammar in grammars]


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_decoder_without_the_grammar_reads_the_same_paths(decoders, stage):
    """The official engine decodes freely: a policy that needs a grammar is of no use to it."""
    policy, params = load_policy(shipped(stage))
    rows = [generate_scene(0, index, 2, "val").examples[:2] for index in range(SCENES)]
    batch = prompt_batch(rows, policy.layout(2))
    (expected, _), (found, _) = (decode(params=params, batch=batch) for decode in decoders)
    pairs = zip(expected.token_ids, expected.lengths, found.token_ids, found.lengths, strict=True)
    same = [np.array_equal(ids[:length], free[:ended]) for ids, length, free, ended in pairs]
    assert np.mean(same) >= 0.9, same
    assert np.mean(found.finish == FINISH_CLOSED) >= 0.9


def test_the_card_says_what_was_measured():
    """Front matter in the form of Hugging Face, and the figures of `figures.json`."""
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    figures = json.loads((ASSETS / "figures.json").read_text(encoding="utf-8"))
    _, front, body = card.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.splitlines() if ": " in line)
    assert fields["license"] == "apache-2.0" and fields["pipeline_tag"] == "image-segmentation"
    assert evaluation(figures) in body
    assert f"refined {figures['rl']['refined']['miou']:.3f}" in body
    written = (ASSETS.parent.parent.parent / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"\| after RL, refined \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|", written)
    refined = figures["rl"]["refined"]
    assert shown and [float(cell) for cell in shown.groups()] == [
        round(refined[name], 3) for name in ("miou", "ciou", "p50", "biou_2px")
    ]
