"""The text of a compiled program, read: computations, instructions, and how often loops turn each of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

ITEM_BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2,
    "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
"""Bytes of an element; tokens and opaque values have none."""

_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_NAME = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHOLE = re.compile(r"-?\d+")
ON_CHIP = "S(1)"
"""In a layout: the array lies in the memory of the core, not in that of the device."""


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape."""

    size: float
    """Bytes."""
    is_on_chip: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    """Of its result; several of a tuple."""
    operands: tuple[str, ...]
    attributes: str
    is_root: bool = False
    number: int | None = None
    """Which argument of its computation a `parameter` is; the value of a whole-numbered `constant`."""

    @property
    def size(self) -> float:
        """Bytes of its result."""
        return sum(array.size for array in self.arrays)

    @property
    def off_chip(self) -> float:
        """Bytes of its result that lie in the device's memory."""
        return sum(array.size for array in self.arrays if not array.is_on_chip)

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Role → computation: `body`, `condition`, `calls`, `to_apply`, and `branch0`, `branch1`, …"""
        found = {role: name for role, name in _CALLED.findall(self.attributes)}
        branches = _BRANCHES.search(self.attributes)
        names = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
        return {**found, **{f"branch{i}": name for i, name in enumerate(names)}}


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a module."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str

    def trips(self, loop: Instruction) -> int | None:
        """Turns of a `while` from 0 by ones to a constant, as scans are compiled; None of another one."""
        known = _TRIPS.search(loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations.get(loop.called.get("condition", ""), ())
        compared = [one for one in condition if one.opcode == "compare" and "direction=LT" in one.attributes]
        bounds = [one.number for one in condition if one.opcode == "constant" and one.number is not None]
        return bounds[0] if len(compared) == len(bounds) == 1 else None

    def turns(self, endless_turns: int = 1, *, fused: bool = False) -> dict[str, int]:
        """Computation → how often a run of the program goes through it; what reductions call is left out.

        Args:
          endless_turns: of loops whose number of turns the compiler does not know; those inside them count once a
            turn.
          fused: whether to go into fusions too.
        """
        found: dict[str, int] = {}
        callers = ("call", "async-start", *(["fusion"] if fused else []))

        def visit(name: str, times: int, endless: int) -> None:
            found[name] = found.get(name, 0) + times
            for one in self.computations[name]:
                inner, left = times, endless
                if one.opcode == "while":
                    trips = self.trips(one)
                    inner, left = (times * trips, endless) if trips is not None else (times * endless, 1)
                for role, called in one.called.items():
                    runs = role in ("body", "condition") or role.startswith(("branch", "true", "false"))
                    if runs or (one.opcode in callers and role in ("to_apply", "calls")):
                        visit(called, inner, left)

        visit(self.entry, 1, endless_turns)
        return found


def read_program(text: str) -> Program:
    """Reads what `compiled.as_text()` gives.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", "", list[Instruction]()
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            name, lines = header.group(2), []
            entry = name if header.group(1) else entry
        elif line.startswith("}") and name:
            computations[name], name = tuple(lines), ""
        elif name and (found := _instruction(line)):
            lines.append(found)
    if entry not in computations:
        raise ValueError("the program's text has no entry computation")
    return Program(computations, entry)


def arrays_of(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape as text, such as `(f32[8,2]{1,0}, u32[])`."""
    found = []
    for kind, dimensions, layout in _ARRAY.findall(shape):
        count = math.prod(int(n) for n in dimensions.split(",") if n)
        found.append(Array(count * ITEM_BYTES.get(kind, 0), ON_CHIP in layout))
    return tuple(found)


def _instruction(line: str) -> Instruction | None:
    name = _NAME.match(line)
    if name is None:
        return None
    rest = line[name.end() :]
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    inside = rest[start + 1 : end - 1]
    return Instruction(
        name=name.group(2), opcode=rest[:start], arrays=arrays_of(shape),
        operands=tuple(re.findall(r"%([\w.\-]+)", rest[start:end])), attributes=rest[end:],
        is_root=name.group(1) is not None,
        number=int(inside) if rest[:start] in ("parameter", "constant") and _WHOLE.fullmatch(inside) else None,
    )  # fmt: skip


def _closing(text: str, start: int) -> int:
    """Behind the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    raise ValueError(f"no closing parenthesis: {text[:80]}")
