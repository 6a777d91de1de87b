"""Floating-point operations of a program, counted in its jaxpr: loops as often as they turn.

XLA's own count takes the body of a loop once, and hides what kernels of its own do. Counted are matrix products,
products of routed rows and convolutions, a multiplication and an addition for each pair of numbers; all else is
small beside them, and bound by memory.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def count_flops(jaxpr: ClosedJaxpr, endless_turns: int = 1) -> int:
    """FLOPs of one run of a program, over all devices of its mesh.

    Args:
      jaxpr: of the traced program.
      endless_turns: turns of loops whose number only the data decide (the decoding of rollouts); loops inside these
        count once a turn.

    Returns:
      2 per multiplication and addition. Of branches the dearest counts; what a `shard_map` does counts once for
      every device of the axes it runs over.
    """
    return _count(jaxpr.jaxpr, endless_turns)


def _count(jaxpr: Jaxpr, turns: int) -> int:
    return sum(_of_equation(equation, turns) for equation in jaxpr.eqns)


def _of_equation(equation: Any, turns: int) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name.startswith("ragged_dot"):
        return _of_routed_rows(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr, turns)
    if name == "while":
        # Such loops inside this one turn as the data say, too: at least once.
        return turns * (_count(params["body_jaxpr"].jaxpr, 1) + _count(params["cond_jaxpr"].jaxpr, 1))
    if name == "cond":
        return max(_count(branch.jaxpr, turns) for branch in params["branches"])
    if name == "shard_map":
        sizes = dict(zip(params["mesh"].axis_names, params["mesh"].axis_sizes, strict=True))
        return math.prod(sizes[axis] for axis in params["newly_manual_axes"]) * _count(params["jaxpr"], turns)
    return sum(_count(inner, turns) for inner in _inner(params))


def _of_routed_rows(equation: Any) -> int:
    """Every row meets the matrix of its own expert: the smallest of the three products that rows and sides make."""
    rows, matrix = (operand.aval.shape for operand in equation.invars[:2])
    out = equation.outvars[0].aval.shape
    if len(matrix) == 3:  # [rows, in] x [experts, in, out]: forward, or back to the rows.
        return 2 * math.prod(out) * rows[-1]
    return 2 * rows[0] * rows[-1] * matrix[-1]  # [rows, in] x [rows, out]: gradients of the matrices.


def _of_convolution(equation: Any) -> int:
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * per_output


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    """Programs inside an equation: calls, checkpoints, custom derivatives."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, Jaxpr):
                found.append(one)
    return found
