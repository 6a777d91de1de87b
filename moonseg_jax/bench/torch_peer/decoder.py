"""The text decoder over a batch, with preallocated keys and values.

Letters: B rows, T new tokens, D width, H heads, d head width, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from experiments.pytorch_inference import Moondream, Weights
from moonseg_jax.bench.torch_peer.layers import Affine, DenseMlp, RoutedMlp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Parameters of one layer, those of parallel products joined."""

    norm: Affine
    qkv: Affine
    tau: Tensor
    """[2H, 3D]: what scales queries, then what scales values."""
    proj: Affine
    mlp: Callable[[Tensor], Tensor]

    @classmethod
    def read(cls, weights: Weights, active_experts: int) -> Block:
        """The layer under one prefix; experts have weights of three axes."""
        attention, mlp = weights.under("attn"), weights.under("mlp")
        return cls(
            norm=Affine.read(weights, "ln"), qkv=Affine.read(attention, "qkv"), proj=Affine.read(attention, "proj"),
            tau=torch.cat([attention["tau.wq"], attention["tau.wv"]]),
            mlp=DenseMlp(mlp) if mlp["fc1.weight"].ndim == 2 else RoutedMlp(mlp, active_experts),
        )  # fmt: skip


class BatchedDecoder:
    """All layers, for rows whose positions differ."""

    def __init__(self, reader: Moondream):
        text = reader.config["text"]
        self.width, self.heads, self.dtype, self.device = text["dim"], reader.heads, reader.dtype, reader.device
        self.blocks = [Block.read(block, text["moe"]["experts_per_token"]) for block in reader.blocks]
        self.tau_gelu = "tanh" if reader.config.get("tau_gelu", "tanh") == "tanh" else "none"
        positions = torch.arange(text["max_context"], dtype=torch.float32, device=self.device)
        rotating = self.width // self.heads // 2
        theta = text.get("rope_theta", 1.5e6)
        angle = positions[:, None] * theta ** (-2.0 * torch.arange(rotating // 2, device=self.device) / rotating)
        rest = torch.zeros(len(angle), self.width // self.heads - rotating, device=self.device)
        # A coordinate beyond the rotating ones turns by no angle.
        self.cosine = torch.cat([angle.cos(), angle.cos(), rest + 1], dim=1)
        self.sine = torch.cat([-angle.sin(), angle.sin(), rest], dim=1)
        # [L*2H]: queries and values of a layer share its slopes.
        self.slopes = torch.cat([block["attn.tau.alpha"].float().repeat(2) for block in reader.blocks])

    def new_cache(self, rows: int, slots: int) -> Float[Tensor, "L 2 B H slots d"]:
        """Zeros; what no mask lets through must still be finite."""
        shape = (len(self.blocks), 2, rows, self.heads, slots, self.width // self.heads)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def __call__(
        self,
        x: Float[Tensor, "B T D"],
        cache: Float[Tensor, "L 2 B H slots d"],
        start: int,
        positions: Int[Tensor, "B T"],
        mask: Float[Tensor, "b 1 t slots"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden rows before the final norm.

        Args:
          x: embeddings of the new tokens.
          cache: keys and values of all slots before; takes the new ones.
          start: slot of the first new token.
          positions: of the new tokens in their sequences.
          mask: added to the attention's logits over the slots up to the last new one; None where all are seen.
        """
        turn = self.cosine[positions][:, None], self.sine[positions][:, None]
        place = 0.5 + ((positions + 1).log()[..., None] * self.slopes).sigmoid()
        places = place.to(x.dtype).unflatten(2, (len(self.blocks), -1)).unbind(2)
        taken, seen = cache.narrow(4, start, x.shape[1]), cache.narrow(4, 0, start + x.shape[1])
        for block, place, own, all_so_far in zip(self.blocks, places, taken, seen):
            normed = block.norm.norm(x)
            x = x + self._attend(block, normed, own, all_so_far, turn, place, mask) + block.mlp(normed)
        return x

    def _attend(
        self,
        block: Block,
        normed: Tensor,
        own: Tensor,
        seen: Tensor,
        turn: tuple[Tensor, Tensor],
        place: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Tau attention of the new tokens over the slots `seen`, whose last ones are their `own`."""
        joint = block.qkv.linear(normed)
        tau = F.linear(F.gelu(joint, approximate=self.tau_gelu), block.tau).tanh() + place
        tau_q, tau_v = tau.unflatten(-1, (2, self.heads)).permute(2, 0, 3, 1).unsqueeze(-1).unbind()
        qkv = joint.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotated(qkv[:2], *turn).unbind()
        own_keys, own_values = own.unbind()
        own_keys.copy_(key)
        torch.mul(qkv[2], tau_v, out=own_values)
        keys, values = seen.unbind()
        mixed = F.scaled_dot_product_attention(query * tau_q, keys, values, mask)
        return block.proj.linear(mixed.transpose(1, 2).flatten(2))


def rotated(
    x: Float[Tensor, "2 B H T d"], cosine: Float[Tensor, "B 1 T d"], sine: Float[Tensor, "B 1 T d"]
) -> Float[Tensor, "2 B H T d"]:
    """Rotary embedding of the first half of the head width, as two halves, in float32."""
    whole, quarter = x.float(), x.shape[-1] // 4
    first, second, rest = whole.split([quarter, quarter, x.shape[-1] - 2 * quarter], dim=-1)
    swapped = torch.cat([second, first, rest], dim=-1)
    return torch.addcmul(whole * cosine, swapped, sine).to(x.dtype)
