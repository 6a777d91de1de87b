"""Layouts undo themselves, and put every value where the official module means it."""

import numpy as np
import pytest

from moonseg_jax.convert.layouts import Layout, official_shape, to_official, to_ours

OFFICIAL = {
    Layout.SAME: (3, 4),
    Layout.TRANSPOSED: (2, 3, 4),
    Layout.LEADING_ONE: (1, 3, 4),
    Layout.POINTWISE: (3, 4, 1, 1),
    Layout.CONVOLUTION: (2, 3, 5, 4),
    Layout.DOUBLING: (3, 4, 2, 2),
    Layout.IMAGE: (1, 3, 4, 5),
}


@pytest.mark.parametrize("layout", Layout)
def test_a_layout_is_undone_from_the_leaf_alone(layout):
    tensor = np.arange(np.prod(OFFICIAL[layout]), dtype=np.float32).reshape(OFFICIAL[layout])
    leaf = to_ours(layout, tensor)
    np.testing.assert_array_equal(to_official(layout, leaf), tensor)
    assert official_shape(layout, leaf.shape) == OFFICIAL[layout]


def test_values_lie_where_our_modules_read_them():
    experts = np.arange(24).reshape(2, 3, 4)
    assert to_ours(Layout.TRANSPOSED, experts)[1, 3, 2] == experts[1, 2, 3]
    kernel = np.arange(120).reshape(2, 3, 5, 4)
    assert to_ours(Layout.CONVOLUTION, kernel)[4, 3, 2, 1] == kernel[1, 2, 4, 3]
    doubling = np.arange(48).reshape(3, 4, 2, 2)
    # Column (row, column, out) of the 2x2 patch.
    assert to_ours(Layout.DOUBLING, doubling)[2, (1 * 2 + 0) * 4 + 3] == doubling[2, 3, 1, 0]
