"""Parts of the refinement head: two-way blocks, mask encoder, upsampler.

Letters: N crops, g patches along a crop, S side of the mask, E embed width, T output tokens (masks + 1).
"""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float

from moonseg_jax.config import RefinerHeadConfig
from moonseg_jax.model.refiner_attention import Attention
from moonseg_jax.model.refiner_layers import Conv3x3, Mlp, PixelNorm, gelu, group_norm, layer_norm, resize_bilinear

MLP_RATIO = 8


class TwoWayBlock(nn.Module):
    """Tokens look at themselves and the image, then the image looks back; residual, normalised after."""

    config: RefinerHeadConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "N T E"], Float[Array, "N gg E"]],
        token_positions: Float[Array, "T E"],
        image_positions: Float[Array, "gg E"],
    ) -> tuple[tuple[Float[Array, "N T E"], Float[Array, "N gg E"]], None]:
        """Updates (tokens, image); the positions are added to queries and keys, never to values."""
        embed, heads = self.config.embed, self.config.heads
        tokens, image = carry
        placed = tokens + token_positions
        tokens = layer_norm("norm_self")(
            tokens + Attention(embed, heads, name="self_attention")(placed, placed, tokens)
        )
        tokens = layer_norm("norm_image")(
            tokens
            + Attention(embed, heads, name="token_to_image")(tokens + token_positions, image + image_positions, image)
        )
        tokens = layer_norm("norm_mlp")(tokens + Mlp((MLP_RATIO * embed, embed), name="mlp")(tokens))
        image = layer_norm("norm_back")(
            image
            + Attention(embed, heads, name="image_to_token")(image + image_positions, tokens + token_positions, tokens)
        )
        return (tokens, image), None


class MaskEncoder(nn.Module):
    """Four strided convolutions from the mask to a code on the grid.

    The group counts follow the official 1, 8, 16, 32: one group first, then a quarter, a half and all of
    `norm_groups`.
    """

    config: RefinerHeadConfig
    grid: int
    on_cpu: bool = False

    @nn.compact
    def __call__(self, mask: Float[Array, "N S S"]) -> Float[Array, "N g g E"]:
        """Codes of the masks, resized to the grid."""
        full = self.config.norm_groups
        groups = (1, full // 4, full // 2, full)
        x = mask[..., None]
        for index, width in enumerate((*self.config.mask_encoder_widths, self.config.embed)):
            x = Conv3x3(width, stride=2, on_cpu=self.on_cpu, name=f"conv_{index}")(x)
            x = gelu(group_norm(groups[index], f"norm_{index}")(x))
        return resize_bilinear(x, self.grid, self.grid)


class Upsampler(nn.Module):
    """Doubles the grid a number of times while halving the channels."""

    doublings: int
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "N g g E"]) -> Float[Array, "N fine fine narrow"]:
        """Transposed convolution, norm, GELU, convolution, norm, GELU, for each doubling."""
        for index in range(self.doublings):
            count, height, width, channels = x.shape
            # A 2x2 transposed convolution of stride 2 has no overlaps: one product and a reordering.
            x = nn.Dense(2 * channels, use_bias=False, name=f"double_{index}")(x)
            x = x.reshape(count, height, width, 2, 2, channels // 2).transpose(0, 1, 3, 2, 4, 5)
            x = x.reshape(count, 2 * height, 2 * width, channels // 2)
            x = x + self.param(f"double_{index}_bias", nn.initializers.zeros, (channels // 2,))
            x = gelu(PixelNorm(on_cpu=self.on_cpu, name=f"norm_double_{index}")(x))
            x = Conv3x3(channels // 2, on_cpu=self.on_cpu, name=f"conv_{index}")(x)
            x = gelu(PixelNorm(on_cpu=self.on_cpu, name=f"norm_conv_{index}")(x))
        return x
