"""The names of mesh axes, and nothing else."""

DATA = "data"
"""Mesh axis over which examples are split."""

FSDP = "fsdp"
"""Mesh axis over which parameters and examples are split."""

EXPERT = "expert"
"""Mesh axis over which routed experts are split, and everything that `fsdp` splits."""

TENSOR = "tensor"
"""Mesh axis over which heads, hidden units and vocabulary are split, and routed experts once more."""

ROWS = (DATA, FSDP, EXPERT)
"""Axes that split the rows of a training batch."""

ENGINES = (DATA, FSDP)
"""Axes along which every place has a rollout engine of its own; engines do not wait for each other, so that those who
share experts must share an engine."""

WEIGHTS = (FSDP, EXPERT)
"""Axes that split parameters to save memory: they are gathered where they are used."""

EXPERTS = (EXPERT, TENSOR)
"""Axes that split the routed experts: whole experts, so that their two matrices stay together."""
