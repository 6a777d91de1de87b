"""Official checkpoints in one form: naming detected, names cleaned, joint tau matrices split, FP8 experts scaled.

Source: moondream3 specification §2, variants and storage rules.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

from moonseg_jax.convert.names import Naming
from moonseg_jax.convert.problems import STORAGE
from moonseg_jax.convert.reading import TensorSource
from moonseg_jax.errors import UserError

_MD3 = re.compile(r"(text_model|vision_encoder|region_model)\.")
_HF = re.compile(r"model\.(text|vision|region)\.")
_OLD_REGION = re.compile(r"region\w*\.(coord|size|coordinate)_(decoder|head)\.fc1\.")
_JOINT = {".tau_wqwv": (".tau_wq", ".tau_wv"), ".attn.tau.wqwv": (".attn.tau.wq", ".attn.tau.wv")}
"""End of a joint tau matrix → ends of its halves, which lie one below the other."""
_SCALES = {
    ".mlp.experts.weight": ".moe_quant.up_scale",
    ".mlp.output_experts.weight": ".moe_quant.down_scale",
    ".mlp.fc1.weight": ".moe_quant.up_scale",
    ".mlp.fc2.weight": ".moe_quant.down_scale",
}
"""End of the name of FP8 experts → end of the name of their scales, one per output row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Official:
    """One tensor under its clean name: the whole of a stored one, half of it, or FP8 times its scales."""

    stored: str
    """Name in the file."""
    dtype: np.dtype
    """Of the values: float32 for FP8 with scales."""
    shape: tuple[int, ...]
    half: int | None = None
    scales: str | None = None
    """Name in the file of one float32 scale per expert and output row."""


class OfficialTensors:
    """The tensors of an official checkpoint under clean names of one naming."""

    def __init__(self, source: TensorSource, where: str):
        """Detects the naming and pairs what belongs together.

        Args:
          source: the stored tensors.
          where: file or folder, for errors.

        Raises:
          UserError: names of no known checkpoint, of Moondream 2, or of both namings; two names for one tensor.
        """
        self._source, self.where = source, where
        clean = {stored: _clean(stored) for stored in source.entries}
        self.naming = detect_naming(clean.values(), where)
        self.entries: dict[str, Official] = {}
        stored_of: dict[str, str] = {}
        for stored, name in clean.items():
            if name in stored_of:
                raise UserError(f"{where} has {name} twice: as {stored_of[name]} and as {stored}")
            stored_of[name] = stored
        self._used: set[str] = set()
        for name, stored in stored_of.items():
            self._add(name, stored, stored_of)
        for scales in self._used:
            self.entries.pop(scales, None)

    @property
    def largest(self) -> int:
        """Bytes of the largest stored tensor."""
        return max((entry.size for entry in self._source.entries.values()), default=0)

    @property
    def quantised(self) -> int:
        """How many tensors are FP8 with scales."""
        return sum(entry.scales is not None for entry in self.entries.values())

    def read(self, name: str, rows: tuple[int, int] | None = None) -> Shaped[np.ndarray, "..."]:
        """One tensor; `rows` reads a range of its first axis."""
        entry = self.entries[name]
        if entry.half is not None:
            start = entry.half * entry.shape[0]
            low, high = rows or (0, entry.shape[0])
            return self._source.read(entry.stored, (start + low, start + high))
        values = self._source.read(entry.stored, rows)
        if entry.scales is None:
            return values
        return values.astype(np.float32) * self._source.read(entry.scales, rows)[..., None]

    def _add(self, name: str, stored: str, stored_of: dict[str, str]) -> None:
        info = self._source.entries[stored]
        for end, halves in _JOINT.items():
            if name.endswith(end) and info.shape and info.shape[0] % 2 == 0:
                shape = (info.shape[0] // 2, *info.shape[1:])
                for half, replacement in enumerate(halves):
                    part = name.removesuffix(end) + replacement
                    if part in stored_of:
                        raise UserError(f"{self.where} has both {stored} and {stored_of[part]}: one of them is wrong")
                    self.entries[part] = Official(stored=stored, dtype=info.dtype, shape=shape, half=half)
                return
        scales = self._scales(name, stored_of) if info.dtype.name.startswith("float8") else None
        if scales is None:
            self.entries[name] = Official(stored=stored, dtype=info.dtype, shape=info.shape)
        else:
            self._used.add(scales)
            dtype = np.dtype(np.float32)
            self.entries[name] = Official(stored=stored, dtype=dtype, shape=info.shape, scales=stored_of[scales])

    def _scales(self, name: str, stored_of: dict[str, str]) -> str | None:
        for end, replacement in _SCALES.items():
            scales = name.removesuffix(end) + replacement
            if name.endswith(end) and scales in stored_of:
                expected = self._source.entries[stored_of[name]].shape[:-1]
                found = self._source.entries[stored_of[scales]]
                if found.shape != expected:
                    raise UserError(
                        f"{self.where}: {scales} has shape {found.shape}, expected {expected}: one scale per expert "
                        "and row"
                    )
                if found.dtype not in STORAGE:
                    raise UserError(f"{self.where}: {scales} is {found.dtype}; scales are float32")
                return scales
        return None


def detect_naming(names: Iterable[str], where: str) -> Naming:
    """The naming that all names share.

    Raises:
      UserError: they are of no known checkpoint, of Moondream 2, or of both namings.
    """
    names = list(names)
    md3, hf = ([name for name in names if pattern.match(name)] for pattern in (_MD3, _HF))
    text = [
        name for name in hf + md3 if re.search(r"\.(blocks|h)\.\d+\..*qkv", name, re.IGNORECASE) and "vis" not in name
    ]
    if any(_OLD_REGION.search(name) for name in names) or (text and not any(".tau" in name for name in names)):
        raise UserError(
            f"{where} is a Moondream 2 checkpoint (dense, without tau attention): only Moondream 3 can be imported"
        )
    if md3 and hf:
        raise UserError(f"{where} mixes two namings: {md3[0]} and {hf[0]}; export it again in one of them")
    if not md3 and not hf:
        shown = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"{where} has no names of a Moondream 3 checkpoint (text_model.… or model.text.…); it has {shown}"
        )
    return Naming.MD3 if md3 else Naming.HF


def _clean(name: str) -> str:
    """Drops what compilation and wrapping leave in names."""
    name = name.replace("._orig_mod", "").removeprefix("_orig_mod.")
    bare = name.removeprefix("model.")
    if _MD3.match(bare):
        return bare
    return f"model.{bare}" if _HF.match(f"model.{bare}") else name
