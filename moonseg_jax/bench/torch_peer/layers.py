"""Layers of the decoder with their parameters at hand: linear, norm, dense MLP, routed experts.

Letters: B rows, T new tokens, N = B*T, D width, E experts, F their width, k experts per token.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from experiments.pytorch_inference import Weights

ALL_EXPERTS_UP_TO = 1 << 18
"""Parameters of one layer's experts up to which all of them are computed for every token. With 74 thousand (preset
tiny) that took half the time of grouping tokens by expert at 8 tokens on a CPU and the same at 128; with 4.7 million
(small) it took 1.2 to 9 times as long, at any count."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """Weight and bias of a linear layer or a normalisation."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def read(cls, weights: Weights, name: str) -> Affine:
        """The parameters under one name."""
        return cls(weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])

    def linear(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return F.linear(x, self.weight, self.bias)

    def norm(self, x: Tensor) -> Tensor:
        """LayerNorm over the last axis."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)


class DenseMlp:
    """Two linear layers with GELU between them."""

    def __init__(self, weights: Weights):
        self.up, self.down = (Affine.read(weights, name) for name in ("fc1", "fc2"))

    def __call__(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """For every token."""
        return self.down.linear(F.gelu(self.up.linear(x), approximate="tanh"))


class RoutedMlp:
    """Every token through its best experts; none is dropped."""

    def __init__(self, weights: Weights, active: int):
        self.router, self.active = Affine.read(weights, "router"), active
        self.up_EFD, self.down_EDF = weights["fc1.weight"], weights["fc2.weight"]
        self.computes_all = self.up_EFD.numel() + self.down_EDF.numel() <= ALL_EXPERTS_UP_TO

    def __call__(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """For every token, by the way that is faster at these sizes."""
        tokens = x.flatten(0, 1)
        best, chosen = self.router.linear(tokens).float().topk(self.active)
        compute = self.all_experts if self.computes_all else self.chosen_experts
        return compute(tokens, chosen, best.softmax(-1).to(x.dtype)).view_as(x)

    @functools.cached_property
    def _joined_down(self) -> Float[Tensor, "D E*F"]:
        """Made only where all experts are computed, since it is a copy."""
        return self.down_EDF.transpose(0, 1).flatten(1)

    def all_experts(self, x_ND: Tensor, chosen_Nk: Tensor, share_Nk: Tensor) -> Tensor:
        """Two products over all experts, those not chosen with share 0."""
        share_NE = x_ND.new_zeros(len(x_ND), len(self.up_EFD)).scatter_(1, chosen_Nk, share_Nk)
        inner_NEF = _gated(F.linear(x_ND, self.up_EFD.flatten(0, 1)).unflatten(1, (len(self.up_EFD), -1)))
        return F.linear((inner_NEF * share_NE[..., None]).flatten(1), self._joined_down)

    def chosen_experts(self, x_ND: Tensor, chosen_Nk: Tensor, share_Nk: Tensor) -> Tensor:
        """Rows sorted by expert, one product for each expert's rows."""
        order = chosen_Nk.flatten().argsort(stable=True)
        ends = chosen_Nk.flatten().bincount(minlength=len(self.up_EFD)).cumsum(0).int()
        rows = order // chosen_Nk.shape[1]
        inner = _gated(F.grouped_mm(x_ND[rows], self.up_EFD.transpose(1, 2), offs=ends))
        result = F.grouped_mm(inner, self.down_EDF.transpose(1, 2), offs=ends)
        return torch.zeros_like(x_ND).index_add_(0, rows, result * share_Nk.flatten()[order, None])


def _gated(x: Tensor) -> Tensor:
    active, gate = x.chunk(2, dim=-1)
    return F.gelu(active) * (gate + 1)
