"""Rows of several processes survive a checkpoint, on as many processes and on others."""

import numpy as np
import pytest

from moonseg_jax.shares import own_share, together

ROWS = {"a": np.arange(7), "b": np.arange(14).reshape(7, 2)}


def test_one_process_has_all_rows_back():
    state = together(ROWS, (0,))
    for name, values in own_share(state, 0, 1).items():
        np.testing.assert_array_equal(values, ROWS[name])


def test_every_process_has_its_own_rows_back():
    state = {"rows": ROWS, "counts": np.array([3, 0, 4])}
    assert [own_share(state, k, 3)["a"].tolist() for k in range(3)] == [[0, 1, 2], [], [3, 4, 5, 6]]
    assert own_share(state, 2, 3)["b"].tolist() == ROWS["b"][3:].tolist()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_another_number_of_processes_shares_out_all_rows(processes):
    state = {"rows": ROWS, "counts": np.array([3, 0, 4])}
    shares = [own_share(state, k, processes)["a"].tolist() for k in range(processes)]
    assert sorted(row for share in shares for row in share) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
