"""What a compiled program's text says of loops, exchanges and memory."""

import os
import subprocess
import sys

import pytest

from moonseg_jax.plan.hlo import arrays_of, read_program
from moonseg_jax.plan.traffic import collectives, memory_traffic

TPU_LIKE = """HloModule jit_step, is_scheduled=true

%cond (p: (s32[], f32[8,16])) -> pred[] {
  %p = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}) parameter(0)
  %bound = s32[]{:T(128)} constant(20)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%start (a: f32[8,16]) -> (f32[8,16], f32[64,16], u32[]) {
  %a = f32[8,16]{1,0:T(8,128)} parameter(0)
  %gather = f32[64,16]{1,0} all-gather(%a), channel_id=3, replica_groups=mesh['x'=4,'y'=8] {'y'}, dimensions={0}
  ROOT %begun = (f32[8,16]{1,0}, f32[64,16]{1,0}, u32[]{:S(2)}) custom-call(%gather), custom_call_target="Start"
}

%going_on (b: f32[8,16], c: f32[64,16], d: f32[2,2]) -> (f32[64,16], f32[2,2]) {
  %b = f32[8,16]{1,0} parameter(0)
  %c = f32[64,16]{1,0} parameter(1)
  %again = f32[64,16]{1,0} all-gather(%b), channel_id=3, replica_groups=mesh['x'=4,'y'=8] {'y'}, dimensions={0}
  %d = f32[2,2]{1,0} parameter(2)
  %twice = f32[2,2]{1,0} add(%d, %d)
  ROOT %out = (f32[64,16]{1,0}, f32[2,2]{1,0}) tuple(%c, %twice)
}

%layer (whole: f32[20,8,16], index: s32[]) -> f32[8,16] {
  %whole = f32[20,8,16]{2,1,0} parameter(0)
  %index = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,16]{2,1,0} dynamic-slice(%whole, %index, %zero, %zero), dynamic_slice_sizes={1,8,16}
  ROOT %flat = f32[8,16]{1,0} bitcast(%slice)
}

%body (q: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %q = (s32[], f32[8,16]{1,0}) parameter(0)
  %one = s32[] constant(1)
  %step = s32[] get-tuple-element(%q), index=0
  %rows = f32[8,16]{1,0:S(1)} get-tuple-element(%q), index=1
  %stack = f32[20,8,16]{2,1,0} constant({...})
  %own = f32[8,16]{1,0} fusion(%stack, %step), kind=kLoop, calls=%layer
  %begin = (f32[8,16]{1,0}, f32[64,16]{1,0}, u32[]{:S(2)}) fusion(%own), kind=kCustom, calls=%start
  %buffer = f32[64,16]{1,0} get-tuple-element(%begin), index=1
  %small = f32[2,2]{1,0} constant({...})
  %beside = (f32[64,16]{1,0}, f32[2,2]{1,0}) fusion(%own, %buffer, %small), kind=kCustom, calls=%going_on
  %next = s32[] add(%step, %one)
  ROOT %new = (s32[], f32[8,16]{1,0}) tuple(%next, %rows)
}

ENTRY %main (x: f32[8,16]) -> (s32[], f32[8,16]) {
  %x = f32[8,16]{1,0} parameter(0)
  %begin0 = s32[] constant(0)
  %init = (s32[], f32[8,16]{1,0}) tuple(%begin0, %x)
  %sum = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%cond
  ROOT %loop = (s32[], f32[8,16]{1,0}) while(%init), condition=%cond, body=%body
}
"""
"""A scan of 20 turns as the TPU compiler writes it: an exchange in the background of two fusions, a sliced stack."""


def test_shapes_are_read_with_their_bytes_and_place():
    (scalar, rows) = arrays_of("(s32[]{:T(128)}, bf16[2,729,1152]{2,1,0:T(8,128)(2,1)S(1)})")
    assert (scalar.size, scalar.is_on_chip) == (4, False)
    assert (rows.size, rows.is_on_chip) == (2 * 2 * 729 * 1152, True)


def test_a_scan_is_counted_as_often_as_it_turns():
    program = read_program(TPU_LIKE)
    assert program.turns()["body"] == 20 and program.turns()["main"] == 1
    found = {(each.kind, each.devices): (each.count, each.bytes) for each in collectives(program)}
    # The exchange stands in two fusions and happens once.
    assert found == {("all-gather", 8): (20, 20 * 64 * 16 * 4), ("all-reduce", 2): (1, 8 * 16 * 4)}


def test_wire_bytes_are_those_of_a_ring():
    gather, reduce = collectives(read_program(TPU_LIKE))
    assert gather.wire_bytes == pytest.approx(gather.bytes * 7 / 8)
    assert reduce.wire_bytes == pytest.approx(2 * reduce.bytes / 2)


def test_of_a_sliced_stack_only_the_slice_is_read():
    layer = 8 * 16 * 4
    slicing = layer + layer  # The slice read and written again, by the fusion `own`; the index is 4 bytes.
    handed_on = layer - layer  # `begin` only starts the exchange.
    beside = 2 * 16  # `twice` reads and writes 2 x 2 numbers; the buffer is only handed on.
    counter = 4 + 4 + 4
    per_turn = slicing + 4 + handed_on + beside + counter
    condition = 4 + 4 + 1
    whole = 20 * (per_turn + condition) + 2 * 8 * 16 * 4  # The all-reduce reads and writes.
    assert memory_traffic(read_program(TPU_LIKE)) == pytest.approx(whole, rel=0.02)


REAL = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from moonseg_jax.plan.hlo import read_program
from moonseg_jax.plan.traffic import collectives
mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

def step(weights, rows):
    def layer(rows, weight):
        return jnp.tanh(jax.lax.psum(rows @ weight, "x")), None
    return jax.lax.scan(layer, rows, weights)[0]

run = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P()), out_specs=P(), check_vma=False))
text = run.lower(jnp.zeros((7, 16, 16)), jnp.zeros((8, 16))).compile().as_text()
(only,) = collectives(read_program(text))
assert (only.kind, only.devices, only.count, only.bytes) == ("all-reduce", 4, 7, 7 * 8 * 16 * 4), only
"""


def test_a_program_compiled_here_is_read_the_same_way():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    subprocess.run([sys.executable, "-c", REAL], env=environment, check=True, timeout=300)


def test_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no entry"):
        read_program("HloModule nothing\n")
