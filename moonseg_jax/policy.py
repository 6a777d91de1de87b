"""A policy ready to run: model, vocabulary, grammar and token tables of one config."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from moonseg_jax.batch import BatchLayout
from moonseg_jax.config import ModelConfig
from moonseg_jax.errors import UserError
from moonseg_jax.model.initial import draw_parameters
from moonseg_jax.model.moondream import Moondream
from moonseg_jax.model.stacks import Remat
from moonseg_jax.paths.full_grammar import full_grammar
from moonseg_jax.paths.grammar import Grammar, polygon_grammar
from moonseg_jax.paths.pen import CurveTables
from moonseg_jax.paths.vocabulary import TokenTables, Vocabulary
from moonseg_jax.weights import POLICY, load_model_config, load_weights


@dataclasses.dataclass(frozen=True)
class Policy:
    """Everything that speaks the language of one model config; holds no parameters."""

    config: ModelConfig
    model: Moondream
    vocabulary: Vocabulary
    grammar: Grammar
    tables: TokenTables

    @classmethod
    def from_config(cls, config: ModelConfig) -> Policy:
        """Builds vocabulary, grammar and modules; only the `full` grammar reads curves.

        Raises:
          UserError: the tokenizer does not fit the model, or there is no such grammar.
        """
        vocabulary = Vocabulary.from_config(config.paths)
        size = config.text.vocabulary
        grammar: Grammar
        tables: TokenTables
        match config.paths.grammar:
            case "polygon":
                grammar = polygon_grammar(
                    vocabulary, config.paths, size, allow_no_target=config.paths.allow_no_target,
                    explicit=config.paths.explicit_lines,
                )  # fmt: skip
                tables = vocabulary.tables(size)
            case "full":
                grammar = full_grammar(vocabulary, config.paths, size, allow_no_target=config.paths.allow_no_target)
                tables = CurveTables.from_vocabulary(vocabulary, size)
            case unknown:
                raise UserError(f"paths.grammar is {unknown!r}: name 'polygon' or 'full'")
        return cls(config, Moondream(config), vocabulary, grammar, tables)

    def computing_in(self, dtype: Literal["float32", "bfloat16"]) -> Policy:
        """The same policy with activations in another type; parameters keep theirs, logits are float32."""
        return dataclasses.replace(self, model=self.model.clone(dtype=jnp.dtype(dtype)))

    def rematerialising(self, remat: Remat) -> Policy:
        """The same policy, of whose activations the backward pass keeps fewer."""
        return dataclasses.replace(self, model=self.model.clone(remat=remat))

    def shapes(self) -> Any:
        """Shapes of the parameters, without allocating them."""
        vision, prompt = self.config.vision, self.config.paths.max_prompt_tokens
        stitch = jnp.zeros((1, 1, vision.grid, vision.grid))
        return jax.eval_shape(
            self.model.init, jax.random.key(0), jnp.zeros((1, 1, vision.crop, vision.crop, 3), jnp.uint8), stitch,
            stitch, jnp.zeros((1, prompt), jnp.int32), jnp.zeros((1, prompt, 2)), jnp.ones((1,), jnp.int32),
        )["params"]  # fmt: skip

    def init(self, seed: int) -> Any:
        """Fresh parameters as nested dicts of host arrays."""
        return draw_parameters(self.shapes(), seed)

    def layout(self, phrases: int, crops: int = 1) -> BatchLayout:
        """Batch shapes for this model."""
        return BatchLayout(model=self.config, vocabulary=self.vocabulary, phrases=phrases, crops=crops)


def load_policy(folder: Path, expected: ModelConfig | None = None) -> tuple[Policy, Any]:
    """A policy with its parameters, from a folder of weights or an imported checkpoint.

    Args:
      folder: see `weights`, and `convert.layered` for imported ones.
      expected: the config the caller will use; None takes the folder's own.

    Raises:
      UserError: no or broken weights, or weights of other sizes.
    """
    if (folder / POLICY).is_dir():
        return _imported_policy(folder, expected)
    policy = Policy.from_config(expected or load_model_config(folder))
    return policy, load_weights(folder, POLICY, policy.shapes())


def _imported_policy(folder: Path, expected: ModelConfig | None) -> tuple[Policy, Any]:
    # Orbax takes a second to import, and most weights are a single file.
    from moonseg_jax.convert.layered import LayeredPolicy, restore_host, with_own_tokenizer
    from moonseg_jax.convert.shapes import policy_shapes

    place = epath.Path(folder)
    policy = Policy.from_config(expected or with_own_tokenizer(load_model_config(folder), place))
    return policy, restore_host(LayeredPolicy(place), policy_shapes(policy.config), np.dtype(np.float32))
