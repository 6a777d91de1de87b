"""Rollouts in fixed batches: every batch runs until its slowest sequence has ended.

Letters: N samples, T the longest budget.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from moonseg_jax.bench.torch_peer.grammar_tables import draw
from moonseg_jax.bench.torch_peer.policy import CroppedImage, Prefilled, Prompt, TorchPolicy
from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchRollouts:
    """Completions on the host, samples of one prompt consecutive, and what they cost."""

    token_ids: Int[np.ndarray, "N T"]
    """EOS past the length."""
    bins: Int[np.ndarray, "N T 2"]
    """Coordinate bin in the first entry, (width, height) bins of a size; 0 elsewhere."""
    log_probs: Float[np.ndarray, "N T"]
    """Of each token, bins included, under grammar and temperature (1 when greedy); 0 past the length."""
    lengths: Int[np.ndarray, " N"]
    """Tokens, EOS included."""
    steps: int
    """Decoding steps of all batches."""
    slot_steps: int
    """Steps times rows: tokens that were computed, useful or not."""
    encode_seconds: float
    prefill_seconds: float
    """Of image prefixes, prompts and their copies to the samples."""
    decode_seconds: float


@torch.inference_mode()
def decode_fixed_batches(
    policy: TorchPolicy,
    images: Sequence[CroppedImage],
    prompts: Sequence[Prompt],
    *,
    group: int,
    batch: int,
    budgets: Int[np.ndarray, " N"],
    temperature: float,
    seed: int,
) -> TorchRollouts:
    """Decodes `group` samples of every prompt in batches of `batch` rows, each until all of its rows have ended.

    Args:
      policy: weights and grammar.
      images: every image once.
      prompts: several may name one image; prompts of one batch are padded to the longest.
      group: samples per prompt.
      batch: rows, a multiple of `group`; the last batch may have fewer.
      budgets: most tokens of every sample, samples of one prompt consecutive.
      temperature: T > 0, or `GREEDY`.
      seed: of the random numbers; which samples share a batch changes what is drawn.

    Raises:
      UserError: nothing to decode, a batch that is no multiple of the group, budgets that do not fit, or sequences
        longer than the model's context.
    """
    _check(prompts, group, batch, budgets, temperature)
    generator = torch.Generator(policy.reader.device).manual_seed(seed)
    clock = _Clock(policy.reader.device)
    embedded = policy.encode(images)
    encode_seconds, prefill_seconds, decode_seconds = clock.lap(), 0.0, 0.0
    longest = max(len(prompt.token_ids) for prompt in prompts)
    slots = 1 + embedded.shape[1] + longest + int(budgets.max())
    cache = policy.cache(min(batch, len(budgets)), slots)
    done: list[_Completed] = []
    for first in range(0, len(prompts), batch // group):
        some = prompts[first : first + batch // group]
        own_cache = cache[:, :, : group * len(some)]
        own_budgets = budgets[group * first : group * (first + len(some))]
        before = policy.prefill(embedded, some, group, own_cache)
        prefill_seconds += clock.lap()
        done.append(_decode(policy, before, own_cache, own_budgets, int(budgets.max()), temperature, generator))
        decode_seconds += clock.lap()
    return TorchRollouts(
        token_ids=_joined(one.token_ids for one in done), bins=_joined(one.bins for one in done),
        log_probs=_joined(one.log_probs for one in done), lengths=_joined(one.lengths for one in done),
        steps=sum(one.steps for one in done), slot_steps=sum(one.steps * len(one.lengths) for one in done),
        encode_seconds=encode_seconds, prefill_seconds=prefill_seconds, decode_seconds=decode_seconds,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Completed:
    """One batch: the fields of `TorchRollouts`."""

    token_ids: Tensor
    bins: Tensor
    log_probs: Tensor
    lengths: Tensor
    steps: int


def _decode(
    policy: TorchPolicy,
    before: Prefilled,
    cache: Tensor,
    budgets: np.ndarray,
    width: int,
    temperature: float,
    generator: torch.Generator,
) -> _Completed:
    reader, rows, device = policy.reader, len(budgets), cache.device
    token_ids = torch.full((rows, width), reader.eos, device=device)
    bins, log_probs = token_ids.new_zeros(rows, width, 2), torch.zeros(rows, width, device=device)
    lengths, ended = token_ids.new_zeros(rows), torch.zeros(rows, dtype=torch.bool, device=device)
    state, budget = torch.full_like(lengths, policy.grammar.initial), torch.tensor(budgets, device=device)
    hidden, steps = before.hidden, 0
    while True:
        forbidden = policy.grammar.forbidden(state, budget - steps)
        token, log_prob = draw(reader.logits(hidden).masked_fill_(forbidden, -torch.inf), temperature, generator)
        live = ~ended
        if bool(((token == reader.coord) | (token == reader.size)).any()):
            own_bins, bins_log_prob, values = policy.draw_bins(hidden, token, temperature, generator)
            bins[:, steps] = own_bins * live[:, None]
            log_prob = log_prob + bins_log_prob
            fed = reader.embed(token.tolist(), values.tolist())
        else:
            fed = F.embedding(token, reader.text["wte"])
        token_ids[:, steps] = torch.where(live, token, reader.eos)
        log_probs[:, steps] = torch.where(live, log_prob, 0.0)
        lengths += live
        steps += 1
        ended |= (token == reader.eos) | (budget <= steps)
        if bool(ended.all()):
            return _Completed(token_ids=token_ids, bins=bins, log_probs=log_probs, lengths=lengths, steps=steps)
        state = policy.grammar.advance(state, token)
        slot = before.start + steps - 1
        mask = None if before.mask is None else before.mask[..., : slot + 1]
        positions = (before.positions + steps - 1)[:, None]
        hidden = policy.decoder(fed[:, None], cache, slot, positions, mask)[:, 0]


def _check(prompts: Sequence[Prompt], group: int, batch: int, budgets: np.ndarray, temperature: float) -> None:
    if not prompts or min(len(prompt.token_ids) for prompt in prompts) < 1:
        raise UserError("the PyTorch peer needs prompts of one token or more")
    if group < 1 or batch < group or batch % group:
        raise UserError(f"a batch of {batch} rows holds no whole groups of {group}; make it a multiple of the group")
    if budgets.shape != (group * len(prompts),):
        raise UserError(f"budgets have shape {budgets.shape}; give one for each of {group * len(prompts)} samples")
    if budgets.min() < 1:
        raise UserError(f"the least budget is {budgets.min()}; every sample needs 1 token or more")
    if temperature < 0:
        raise UserError(f"the temperature is {temperature}; it must not be negative")


class _Clock:
    """Seconds between laps, work queued on an accelerator included."""

    def __init__(self, device: torch.device):
        self._device, self._last = device, time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        last, self._last = self._last, time.perf_counter()
        return self._last - last


def _joined(parts: Iterator[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).cpu().numpy()
