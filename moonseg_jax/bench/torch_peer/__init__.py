"""The PyTorch peer that `moonseg bench rollout` measures ours against: an export decoded in fixed batches.

Raises:
  UserError: on import, where PyTorch is not installed.
"""

import importlib.util

from moonseg_jax.errors import UserError

if importlib.util.find_spec("torch") is None:
    raise UserError("the PyTorch peer needs PyTorch: install moonseg-jax[torch]")
