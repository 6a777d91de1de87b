"""How a tensor of the official PyTorch modules lies in our parameters, and back.

PyTorch stores linear kernels as [out, in] and convolutions as [out, in, row, column]; ours are [in, out] and
[row, column, in, out]. Every layout can be undone from the shape alone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

Tensor = Shaped[np.ndarray, "..."]
Shape = tuple[int, ...]


class Layout(enum.Enum):
    """What changes between the official tensor and our leaf."""

    SAME = "same"
    TRANSPOSED = "transposed"
    """The last two axes swapped: linear kernels, experts, Fourier matrices of the md3 naming."""
    LEADING_ONE = "leading one"
    """[1, p, w] ↔ [p, w]: positions of the patches."""
    POINTWISE = "pointwise"
    """[out, in, 1, 1] ↔ [in, out]: a 1x1 convolution is a linear layer."""
    CONVOLUTION = "convolution"
    """[out, in, row, column] ↔ [row, column, in, out]."""
    DOUBLING = "doubling"
    """[in, out, 2, 2] ↔ [in, 4 out], row and column of the 2x2 patch before out: a transposed convolution."""
    IMAGE = "image"
    """[1, channel, row, column] ↔ [row, column, channel]."""


def to_ours(layout: Layout, official: Tensor) -> Tensor:
    """Our leaf (a view where possible) of an official tensor."""
    return _TO_OURS[layout](official)


def to_official(layout: Layout, leaf: Tensor) -> Tensor:
    """The official tensor (a view where possible) of our leaf."""
    return _TO_OFFICIAL[layout](leaf)


def official_shape(layout: Layout, leaf: Shape) -> Shape:
    """Shape of the official tensor of a leaf of the given shape."""
    return to_official(layout, np.broadcast_to(np.int8(0), leaf)).shape


def _to_doubling(kernel: Tensor) -> Tensor:
    return kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)


def _from_doubling(kernel: Tensor) -> Tensor:
    return kernel.reshape(len(kernel), 2, 2, -1).transpose(0, 3, 1, 2)


def _swap(tensor: Tensor) -> Tensor:
    return tensor.swapaxes(-1, -2)


_TO_OURS: dict[Layout, Callable[[Tensor], Tensor]] = {
    Layout.SAME: lambda tensor: tensor,
    Layout.TRANSPOSED: _swap,
    Layout.LEADING_ONE: lambda tensor: tensor[0],
    Layout.POINTWISE: lambda tensor: tensor[:, :, 0, 0].T,
    Layout.CONVOLUTION: lambda tensor: tensor.transpose(2, 3, 1, 0),
    Layout.DOUBLING: _to_doubling,
    Layout.IMAGE: lambda tensor: tensor[0].transpose(1, 2, 0),
}
_TO_OFFICIAL: dict[Layout, Callable[[Tensor], Tensor]] = {
    Layout.SAME: lambda leaf: leaf,
    Layout.TRANSPOSED: _swap,
    Layout.LEADING_ONE: lambda leaf: leaf[None],
    Layout.POINTWISE: lambda leaf: leaf.T[:, :, None, None],
    Layout.CONVOLUTION: lambda leaf: leaf.transpose(3, 2, 0, 1),
    Layout.DOUBLING: _from_doubling,
    Layout.IMAGE: lambda leaf: leaf.transpose(2, 0, 1)[None],
}
