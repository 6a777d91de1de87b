"""The grammar of a completion: a finite automaton as tables, usable inside jit.

A completion is a box (coordinate, coordinate, size), a path and EOS. Tokens fall into classes; the automaton
moves on classes. One automaton masks sampling and learning, so that both see the same distribution.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from moonseg_jax.config import PathConfig
from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import Vocabulary


class TokenClass(enum.IntEnum):
    """What a token is to the automaton."""

    COORDINATE = 0
    SIZE = 1
    MOVE = 2
    LINE = 3
    CLOSE = 4
    NUMBER = 5
    END = 6
    OTHER = 7
    """Everything the automaton never allows."""


ILLEGAL = -1
"""Entry of the transition table where a class may not follow a state."""

Class = TypeVar("Class", bound=enum.IntEnum)

Transitions = Mapping[str, Mapping[TokenClass, str]]
"""State → class → next state, by name; the first state is the initial one."""

_BOX: Transitions = {
    "centre x": {TokenClass.COORDINATE: "centre y"},
    "centre y": {TokenClass.COORDINATE: "size"},
    "size": {TokenClass.SIZE: "path"},
    "path": {TokenClass.MOVE: "first x"},
    "first x": {TokenClass.NUMBER: "first y"},
    "first y": {TokenClass.NUMBER: "one vertex"},
}

_CLOSED: Transitions = {
    "closed": {TokenClass.MOVE: "first x", TokenClass.END: "ended"},
    "ended": {TokenClass.END: "ended"},
}

IMPLICIT_LINES: Transitions = {
    **_BOX,
    "one vertex": {TokenClass.NUMBER: "second y"},
    "second y": {TokenClass.NUMBER: "two vertices"},
    "two vertices": {TokenClass.NUMBER: "next y"},
    "next y": {TokenClass.NUMBER: "open"},
    "open": {TokenClass.NUMBER: "next y", TokenClass.CLOSE: "closed"},
    **_CLOSED,
}
"""`M x y x y x y … Z`: pairs after the first are line-tos without a letter."""

EXPLICIT_LINES: Transitions = {
    **_BOX,
    "one vertex": {TokenClass.LINE: "second x"},
    "second x": {TokenClass.NUMBER: "second y"},
    "second y": {TokenClass.NUMBER: "two vertices"},
    "two vertices": {TokenClass.LINE: "next x"},
    "next x": {TokenClass.NUMBER: "next y"},
    "next y": {TokenClass.NUMBER: "open"},
    "open": {TokenClass.LINE: "next x", TokenClass.CLOSE: "closed"},
    **_CLOSED,
}
"""`M x y L x y L x y … Z`: every line-to has its letter."""


@flax.struct.dataclass
class Grammar:
    """A finite automaton over token classes, with the shortest way to a proper end from every state."""

    next_state: Int[Array, "states classes"]
    """Transition table; `ILLEGAL` where the class may not follow."""
    tokens_to_end: Int[Array, " states"]
    """Fewest tokens, EOS included, from a state to the end; 0 in the end state."""
    class_of_token: Int[Array, " V"]
    """Class of every token of the model's vocabulary."""
    choices: Int[Array, " A"]
    """Tokens that are allowed in some state, ascending: nothing else needs a logit. All where not enforced."""
    initial: int = flax.struct.field(pytree_node=False)
    """State before the first token of a completion."""
    ended: int = flax.struct.field(pytree_node=False)
    """State after EOS, in which EOS alone is allowed. Illegal tokens lead here too."""
    enforced: bool = flax.struct.field(pytree_node=False, default=True)
    """Whether the mask forbids what the automaton does not allow; without, it only watches."""

    def unenforced(self) -> Grammar:
        """The same automaton for free decoding: every token may be chosen, `allows` still tells right from wrong."""
        everything = jnp.arange(len(self.class_of_token))
        return self.replace(enforced=False, choices=everything)  # type: ignore[attr-defined]

    def mask(self, state: Int[Array, "*batch"], remaining: Int[Array, "*batch"]) -> Bool[Array, "*batch V"]:
        """Which tokens of the whole vocabulary may come next; see `choice_mask`."""
        return self._allowed(state, remaining, self.class_of_token)

    def choice_mask(self, state: Int[Array, "*batch"], remaining: Int[Array, "*batch"]) -> Bool[Array, "*batch A"]:
        """Which of the `choices` may come next.

        A token is allowed if the automaton has a transition for it and the path can still be properly ended
        within the budget. Where the budget is too small from the start, the shortest way is allowed, so that
        no row is ever empty.

        Args:
          state: automaton state before the token.
          remaining: tokens left in the budget, the one about to be chosen included.
        """
        return self._allowed(state, remaining, self.class_of_token[self.choices])

    def choice_of_token(self, token: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
        """Place of a token among the `choices`; of one that is none, the place where it would stand."""
        return jnp.minimum(jnp.searchsorted(self.choices, token), len(self.choices) - 1)

    def _allowed(
        self, state: Int[Array, "*batch"], remaining: Int[Array, "*batch"], classes: Int[Array, " n"]
    ) -> Bool[Array, "*batch n"]:
        if not self.enforced:
            return jnp.ones((*state.shape, len(classes)), bool)
        following = self.next_state[state]
        budget = jnp.maximum(jnp.maximum(remaining, self.tokens_to_end[state]), 1)
        fits = self.tokens_to_end[following] < budget[..., None]
        allowed_class = (following != ILLEGAL) & fits
        return jnp.take(allowed_class, classes, axis=-1)

    def allows(self, state: Int[Array, "*batch"], token: Int[Array, "*batch"]) -> Bool[Array, "*batch"]:
        """Whether the automaton has a transition for the token, budget aside."""
        return self.next_state[state, self.class_of_token[token]] != ILLEGAL

    def advance(self, state: Int[Array, "*batch"], token: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
        """State after a token; an illegal token ends the path."""
        following = self.next_state[state, self.class_of_token[token]]
        return jnp.where(following == ILLEGAL, self.ended, following)

    def states(self, token_ids: Int[Array, "N T"]) -> Int[Array, "N T"]:
        """State before each token of given completions, for masking the learner as the sampler was."""

        def step(state: Array, token: Array) -> tuple[Array, Array]:
            return self.advance(state, token), state

        start = jnp.full(token_ids.shape[0], self.initial, jnp.int32)
        _, before = jax.lax.scan(step, start, jnp.swapaxes(token_ids, 0, 1))
        return jnp.swapaxes(before, 0, 1)


def polygon_grammar(
    vocabulary: Vocabulary,
    paths: PathConfig,
    vocabulary_size: int,
    *,
    allow_no_target: bool = False,
    explicit: bool = False,
) -> Grammar:
    """Grammar of closed polygons: a box, then one or more `M … Z` of at least three vertices, then EOS.

    Args:
      vocabulary: the alphabet; only the lowest id of every letter and number is allowed.
      paths: names the control tokens.
      vocabulary_size: the model's `text.vocabulary`.
      allow_no_target: EOS may be the very first token.
      explicit: every line-to has its `L`.

    Raises:
      UserError: a token lies beyond the model's vocabulary.
    """
    transitions = {state: dict(moves) for state, moves in (EXPLICIT_LINES if explicit else IMPLICIT_LINES).items()}
    if allow_no_target:
        transitions["centre x"][TokenClass.END] = "ended"
    members = {
        TokenClass.COORDINATE: [paths.coord_token],
        TokenClass.SIZE: [paths.size_token],
        TokenClass.MOVE: [vocabulary.command_ids["M"]],
        TokenClass.LINE: [vocabulary.command_ids["L"]],
        TokenClass.CLOSE: [vocabulary.command_ids["Z"]],
        TokenClass.NUMBER: vocabulary.integer_ids.tolist(),
        TokenClass.END: [paths.eos],
    }
    return grammar_from_transitions(transitions, members, TokenClass.OTHER, vocabulary, vocabulary_size)


def grammar_from_transitions(
    transitions: Mapping[str, Mapping[Class, str]],
    members: Mapping[Class, Sequence[int]],
    other: Class,
    vocabulary: Vocabulary,
    vocabulary_size: int,
) -> Grammar:
    """Tables of an automaton.

    Args:
      transitions: state → class → next state, by name; the first state is the initial one, and one is `ended`.
      members: the tokens of every class; those of no class are never allowed.
      other: the class of tokens that are in no class.
      vocabulary: named in errors.
      vocabulary_size: the model's `text.vocabulary`.

    Raises:
      UserError: a token lies beyond the model's vocabulary.
    """
    number_of_state = {state: number for number, state in enumerate(transitions)}
    next_state = np.full((len(transitions), len(type(other))), ILLEGAL, np.int32)
    for state, moves in transitions.items():
        for token_class, following in moves.items():
            next_state[number_of_state[state], token_class] = number_of_state[following]
    ended = number_of_state["ended"]
    class_of_token = _class_of_token(members, other, vocabulary, vocabulary_size)
    return Grammar(
        next_state=jnp.asarray(next_state),
        tokens_to_end=jnp.asarray(_tokens_to_end(next_state, ended)),
        class_of_token=jnp.asarray(class_of_token),
        choices=jnp.asarray(np.flatnonzero((next_state != ILLEGAL).any(axis=0)[class_of_token])),
        initial=0,
        ended=ended,
    )


def _tokens_to_end(next_state: np.ndarray, ended: int) -> np.ndarray:
    """Length of the shortest way to the end from every state, by relaxation."""
    far = np.iinfo(np.int32).max // 2
    distance = np.full(len(next_state), far, np.int32)
    distance[ended] = 0
    for _ in next_state:
        through = np.where(next_state == ILLEGAL, far, distance[next_state] + 1)
        distance = np.minimum(distance, through.min(axis=1)).astype(np.int32)
    return distance


def _class_of_token(
    members: Mapping[Class, Sequence[int]], other: Class, vocabulary: Vocabulary, vocabulary_size: int
) -> np.ndarray:
    classes = np.full(vocabulary_size, other, np.int32)
    for token_class, tokens in members.items():
        beyond = [token for token in tokens if token >= vocabulary_size]
        if beyond:
            raise UserError(
                f"text.vocabulary is {vocabulary_size}, but the grammar needs token {max(beyond)} "
                f"({token_class.name.lower()}); set text.vocabulary to at least {vocabulary.size}"
            )
        classes[list(tokens)] = token_class
    return classes
