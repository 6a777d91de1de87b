"""The PyTorch peer that `moonseg bench rollout` and `refine` measure ours against: an export, run in batches.

Raises:
  UserError: on import, where PyTorch is not installed.
"""

import importlib.util

from moonseg_jax.errors import UserError

if importlib.util.find_spec("torch") is None:
    raise UserError("the PyTorch peer needs PyTorch: install moonseg-jax[torch]")
