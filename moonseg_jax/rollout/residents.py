"""Prefixes held on device: images and prompts that sequences in flight attend to, each stored once.

Letters: W places for images, K phrases of each, G samples per phrase; seats are numbered place * K * G + phrase * G
+ sample.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.config import TextConfig
from moonseg_jax.model.decoding import contexts_of
from moonseg_jax.model.segments import Segment
from moonseg_jax.model.text import LayerContext
from moonseg_jax.rollout.prefill import Prefill


@flax.struct.dataclass
class Residents:
    """Images and prompts whose samples are waiting or being decoded."""

    images: tuple[Segment, ...]
    """Per layer, keys and values of W image prefixes."""
    prompts: tuple[Segment, ...]
    """Per layer, those of W*K prompts."""
    prompt_end: Float[Array, "W*K D"]
    prompt_lengths: Int[Array, " W*K"]
    unfinished: Int[Array, " W"]
    """Samples of each place still to be finished; 0 means that the place is free."""
    place_of_image: Int[Array, " I"]
    group: int = flax.struct.field(pytree_node=False)
    """G."""

    @property
    def places(self) -> int:
        """W."""
        return len(self.unfinished)

    @property
    def seats(self) -> int:
        """W * K * G."""
        return len(self.prompt_lengths) * self.group

    @property
    def contexts(self) -> tuple[list[Segment], ...]:
        """Per layer, what completions attend to: image prefix and prompt."""
        return tuple([image, prompt] for image, prompt in zip(self.images, self.prompts))

    def seat_of_sample(self, sample: Int[Array, " S"]) -> Int[Array, " S"]:
        """Seat of a sample whose image is resident; samples are numbered image * K * G + phrase * G + sample."""
        per_place = self.seats // self.places
        image = jnp.minimum(sample // per_place, len(self.place_of_image) - 1)
        return self.place_of_image[image] * per_place + sample % per_place

    def prompt_of_seat(self, seat: Int[Array, " S"]) -> Int[Array, " S"]:
        """Row of the prompt that a seat reads; the last row for numbers past the last seat."""
        return jnp.minimum(seat, self.seats - 1) // self.group


def empty_residents(before: Prefill, config: TextConfig, images: int, places: int, group: int) -> Residents:
    """Free places only.

    Args:
      before: shapes of a prefill of some images.
      config: of the text decoder.
      images: I, images of the whole queue.
      places: W.
      group: G.
    """
    encoded = before.image.shape[0]

    def grown(leaf: jax.ShapeDtypeStruct | Array) -> Array:
        return jnp.zeros((leaf.shape[0] * places // encoded, *leaf.shape[1:]), leaf.dtype)

    def pool(context: LayerContext) -> tuple[Segment, ...]:
        return jax.tree.map(grown, jax.eval_shape(functools.partial(contexts_of, config=config), context))

    return Residents(
        images=pool(before.context[0]),
        prompts=pool(before.context[1]),
        prompt_end=grown(before.prompt_end),
        prompt_lengths=grown(before.lengths),
        unfinished=jnp.zeros(places, jnp.int32),
        place_of_image=jnp.zeros(images, jnp.int32),
        group=group,
    )


def admit(
    residents: Residents,
    before: Prefill,
    config: TextConfig,
    first_image: Int[Array, ""],
    samples: Int[Array, " c"],
) -> Residents:
    """Puts freshly prefilled images, with their prompts, on free places; there must be enough of them.

    Args:
      residents: places.
      before: of c images.
      config: of the text decoder.
      first_image: number of the first of them in the queue.
      samples: how many samples each of them will have.
    """
    count, phrases = len(samples), before.lengths.shape[0] // len(samples)
    places = jnp.argsort(residents.unfinished > 0, stable=True)[:count]
    prompts = (places[:, None] * phrases + jnp.arange(phrases)).reshape(-1)

    def put(pool: tuple[Segment, ...], fresh: LayerContext, rows: Int[Array, " n"]) -> tuple[Segment, ...]:
        return jax.tree.map(lambda held, leaf: held.at[rows].set(leaf), pool, contexts_of(fresh, config))

    image, prompt = before.context
    return dataclasses.replace(
        residents,
        images=put(residents.images, image, places),
        prompts=put(residents.prompts, prompt, prompts),
        prompt_end=residents.prompt_end.at[prompts].set(before.prompt_end),
        prompt_lengths=residents.prompt_lengths.at[prompts].set(before.lengths),
        unfinished=residents.unfinished.at[places].set(samples),
        place_of_image=jax.lax.dynamic_update_slice(residents.place_of_image, places, (first_image,)),
    )


def free_places(residents: Residents) -> Int[Array, ""]:
    """Places that hold nobody's prefix."""
    return jnp.sum(residents.unfinished == 0)


def release(residents: Residents, seats: Int[Array, " S"], finished: Bool[Array, " S"]) -> Residents:
    """Counts finished samples off the places of their seats."""
    place = jnp.minimum(seats, residents.seats - 1) // (residents.seats // residents.places)
    return dataclasses.replace(residents, unfinished=residents.unfinished.at[place].add(-finished.astype(jnp.int32)))
