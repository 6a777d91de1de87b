"""Slots: sequences decoded side by side, each refilled from the queue as soon as its sample has ended."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.model.pages import Cache
from moonseg_jax.model.segments import Seats
from moonseg_jax.rollout.residents import Residents


@flax.struct.dataclass
class Queue:
    """Samples to decode, in order: (prompt, sample index), prompts without a phrase left out."""

    order: Int[Array, " n"]
    """Sample numbers, those of real prompts first."""
    ready: Int[Array, ""]
    """How many of them have their prefix on device."""
    taken: Int[Array, ""]
    """How many have been given a slot."""


@flax.struct.dataclass
class Slots:
    """S sequences in flight. An idle slot computes what nobody reads."""

    sample: Int[Array, " S"]
    """Number of the sample in the batch; `idle` where there is none."""
    seat: Int[Array, " S"]
    """At the resident prefixes; the number of seats where the slot is idle."""
    step: Int[Array, " S"]
    """Completion tokens drawn so far."""
    hidden: Float[Array, "S D"]
    """Row that predicts the next token."""
    grammar_state: Int[Array, " S"]
    broken: Bool[Array, " S"]
    """A token was drawn that the grammar forbids."""
    caches: tuple[Cache, ...]
    """Own keys and values per layer; what a slot's earlier samples left there is behind the mask."""
    idle: int = flax.struct.field(pytree_node=False)
    """One past the last sample number."""

    @property
    def busy(self) -> Bool[Array, " S"]:
        """Slots that hold a sample."""
        return self.sample < self.idle


def refill(slots: Slots, queue: Queue, residents: Residents, grammar_start: int) -> tuple[Slots, Queue]:
    """Gives every idle slot the next ready sample, at its first step.

    Args:
      slots: some of them idle.
      queue: samples.
      residents: prefixes of the ready ones.
      grammar_start: initial state of the automaton.
    """
    idle = ~slots.busy
    turn = queue.taken + jnp.cumsum(idle) - 1
    fresh = idle & (turn < queue.ready)
    sample = jnp.where(fresh, queue.order[jnp.minimum(turn, len(queue.order) - 1)], slots.sample)
    seat = jnp.where(fresh, residents.seat_of_sample(sample), slots.seat)
    slots = dataclasses.replace(
        slots,
        sample=sample,
        seat=seat,
        step=jnp.where(fresh, 0, slots.step),
        hidden=jnp.where(fresh[:, None], residents.prompt_end[residents.prompt_of_seat(seat)], slots.hidden),
        grammar_state=jnp.where(fresh, grammar_start, slots.grammar_state),
        broken=slots.broken & ~fresh,
    )
    return slots, dataclasses.replace(queue, taken=queue.taken + jnp.sum(fresh))


def leave(slots: Slots, finished: Bool[Array, " S"], residents: Residents) -> Slots:
    """Makes slots idle whose sample has ended."""
    return dataclasses.replace(
        slots,
        sample=jnp.where(finished, slots.idle, slots.sample),
        seat=jnp.where(finished, residents.seats, slots.seat),
        step=jnp.where(finished, 0, slots.step),
    )


def seating(slots: Slots, residents: Residents) -> Seats:
    """Which slots read which resident prefix."""
    nobody = len(slots.seat)
    row_of_seat = jnp.full(residents.seats, nobody).at[slots.seat].set(jnp.arange(nobody), mode="drop")
    return Seats(
        row_of_seat=jnp.minimum(row_of_seat, nobody - 1),
        seat_of_row=jnp.minimum(slots.seat, residents.seats - 1),
        taken=row_of_seat < nobody,
    )
