"""What a compiled program moves: between devices, and between a device and its memory."""

from __future__ import annotations

import dataclasses
import math
import re

from moonseg_jax.plan.hlo import Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "async-start", "async-update", "async-done", "opt-barrier", "add-dependency",
}  # fmt: skip
"""Instructions that move nothing themselves."""
SLICES = {"dynamic-slice", "slice", "gather"}
"""Of their first operand only what they give is read."""
TOKEN = 64
"""Bytes that no array of interest is smaller than."""
RENAMES = {"bitcast", "reshape", "copy", "transpose", "convert"}
_GROUPS_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All exchanges of one kind among groups of one size, in one run of a program."""

    kind: str
    devices: int
    """That exchange with each other; 0 where the program does not say."""
    count: int
    bytes: float
    """Of the whole arrays, on one device."""

    @property
    def wire_bytes(self) -> float:
        """That one device sends: of a ring's n - 1 turns, twice of an all-reduce."""
        share = (self.devices - 1) / self.devices if self.devices else 1.0
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def collectives(program: Program, endless_turns: int = 1) -> list[Collective]:
    """Exchanges between devices by kind and number of devices, loops counted as often as they turn.

    Args:
      program: compiled for one device of the mesh.
      endless_turns: see `Program.turns`.
    """
    # One exchange that runs beside arithmetic stands in several fusions, always with the same channel.
    by_channel: dict[str, tuple[str, int, int, float]] = {}
    for name, times in program.turns(endless_turns, fused=True).items():
        for one in program.computations[name]:
            kind = one.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = _CHANNEL.search(one.attributes)
            key = channel.group(1) if channel else one.name
            if by_channel.get(key, ("", 0, 0, 0.0))[2] < times:
                size = _whole_bytes(one, program.computations[name])
                by_channel[key] = kind, _group_size(one.attributes), times, size
    found: dict[tuple[str, int], tuple[int, float]] = {}
    for kind, devices, times, size in by_channel.values():
        if devices != 1:
            count, total = found.get((kind, devices), (0, 0.0))
            found[kind, devices] = count + times, total + times * size
    return [
        Collective(kind=kind, devices=devices, count=count, bytes=size)
        for (kind, devices), (count, size) in sorted(found.items())
    ]


def memory_traffic(program: Program, endless_turns: int = 1) -> float:
    """Bytes read from and written to one device's memory: operands and results of everything that runs.

    Of arrays that are sliced or updated in place only the part counts; what stays in the core does not.
    """
    total = 0.0
    for name, times in program.turns(endless_turns).items():
        lines = program.computations[name]
        by_name = {one.name: one for one in lines}
        total += times * sum(_moved(one, by_name, program) for one in lines)
    return total


def _moved(one: Instruction, by_name: dict[str, Instruction], program: Program) -> float:
    if one.opcode in FREE or one.opcode.endswith("-done"):
        return 0.0
    operands = [by_name[name].off_chip if name in by_name else 0.0 for name in one.operands]
    if one.opcode in SLICES:
        return 2 * one.off_chip
    if one.opcode == "slice-start":
        # Its result holds the whole, the part and a token.
        return min(array.size for array in one.arrays if array.size > TOKEN)
    if one.opcode == "dynamic-update-slice":
        return 2 * operands[1]
    if one.opcode == "fusion" and one.called.get("calls") in program.computations:
        return _moved_by_fusion(one, operands, program.computations[one.called["calls"]])
    return one.off_chip + sum(operands)


def _moved_by_fusion(one: Instruction, operands: list[float], inside: tuple[Instruction, ...]) -> float:
    """Of a fusion: of operands that are only sliced inside what is read, of results updated in place the update.

    What it only hands on, such as the buffers of an exchange that runs beside it, is not moved by it.
    """
    by_name = {line.name: line for line in inside}
    users: dict[str, list[Instruction]] = {}
    for line in inside:
        for name in line.operands:
            users.setdefault(name, []).append(line)
    total = 0.0
    for line in inside:
        if line.opcode != "parameter" or line.number is None:
            continue
        reads = [(end, via) for end, via in _ends(line, users) if not _hands_on(end)]
        if all(end.opcode in SLICES and end.operands[0] == via for end, via in reads):
            total += min(operands[line.number], sum(end.size for end, _ in reads))
        elif not any(end.opcode == "dynamic-update-slice" and end.operands[0] == via for end, via in reads):
            total += operands[line.number]
    root = next(line for line in inside if line.is_root)
    results = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for result, array in zip(results, one.arrays):
        made = _before_renaming(result, by_name)
        if made.opcode == "dynamic-update-slice":
            total += 2 * by_name[made.operands[1]].size
        elif not array.is_on_chip and not (made.opcode == "parameter" or _hands_on(made)):
            total += array.size
    return total


def _hands_on(line: Instruction) -> bool:
    """Whether it reads nothing itself: exchanges are counted apart."""
    return line.opcode in ("tuple", "custom-call", *KINDS)


def _before_renaming(line: Instruction, by_name: dict[str, Instruction]) -> Instruction:
    while line.opcode in RENAMES:
        line = by_name[line.operands[0]]
    return line


def _ends(line: Instruction, users: dict[str, list[Instruction]]) -> list[tuple[Instruction, str]]:
    """Who reads a value, through mere renamings; and under which name."""
    found = []
    for user in users.get(line.name, []):
        found += _ends(user, users) if user.opcode in RENAMES else [(user, line.name)]
    return found


def _group_size(attributes: str) -> int:
    listed, counted = _GROUPS_LISTED.search(attributes), _GROUPS_COUNTED.search(attributes)
    if listed:
        return len(listed.group(1).split(","))
    if counted:
        return int(counted.group(2))
    named = _GROUPS_NAMED.search(attributes)
    if named is None:
        return 0
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", named.group(1)))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named.group(2)))


def _whole_bytes(one: Instruction, lines: tuple[Instruction, ...]) -> float:
    """The larger of what goes in and what comes out; the start of an asynchronous one holds both in its result."""
    sizes = {line.name: line.size for line in lines}
    given = sum(sizes.get(name, 0.0) for name in one.operands)
    if one.opcode.endswith("-start"):
        return max(given, one.size - given)
    return max(given, one.size)
