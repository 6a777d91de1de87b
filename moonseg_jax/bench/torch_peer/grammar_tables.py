"""The grammar's tables as tensors, and drawing under them. Letters: B rows, V vocabulary."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from moonseg_jax.paths.grammar import Grammar

GREEDY = 0.0
"""Temperature that takes the best entry."""


class GrammarTables:
    """A grammar looked up by (state, tokens remaining), its masks worked out beforehand."""

    def __init__(self, grammar: Grammar, device: torch.device):
        states = jnp.arange(len(grammar.tokens_to_end))[:, None]
        # With more than the longest way to the end remaining, the budget forbids nothing.
        self.most = int(grammar.tokens_to_end.max()) + 1
        allowed = np.asarray(grammar.mask(states, jnp.arange(self.most + 1)))
        following = np.asarray(grammar.advance(states, jnp.arange(allowed.shape[-1])))
        self.initial = grammar.initial
        self._forbidden = torch.tensor(~allowed, device=device)
        self._following = torch.tensor(following, dtype=torch.long, device=device)

    def forbidden(self, state: Int[Tensor, " B"], remaining: Int[Tensor, " B"]) -> Bool[Tensor, "B V"]:
        """What may not come next; `remaining` counts the token about to be chosen."""
        return self._forbidden[state, remaining.clamp(0, self.most)]

    def advance(self, state: Int[Tensor, " B"], token: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """State after a token."""
        return self._following[state, token]


def draw(
    logits: Float[Tensor, "*rows n"], temperature: float, generator: torch.Generator
) -> tuple[Int[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """One choice per row and its log-probability.

    Draws by inverting the cumulative distribution: one random number per row, where noise for every entry would cost
    more than the decoder's products at small sizes.
    """
    log_probs = (logits / (temperature or 1.0)).log_softmax(-1)
    if temperature == GREEDY:
        choice = logits.argmax(-1, keepdim=True)
    else:
        sums = log_probs.exp().cumsum(-1)
        level = torch.rand((*sums.shape[:-1], 1), generator=generator, device=sums.device) * sums[..., -1:]
        choice = torch.searchsorted(sums, level, right=True)
    return choice.squeeze(-1), log_probs.gather(-1, choice).squeeze(-1)
