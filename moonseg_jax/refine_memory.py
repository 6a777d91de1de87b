"""What refinement needs of a device's memory, worked out before anything runs."""

from __future__ import annotations

from moonseg_jax.config import ModelConfig
from moonseg_jax.errors import UserError
from moonseg_jax.model.refiner import RefinementHead

GIB = 1 << 30
FLOAT32 = 4


def bytes_per_crop(config: ModelConfig, head: RefinementHead) -> int:
    """Bytes that one more crop of a batch takes while the encoder or the head runs, whichever takes more.

    Counted are the arrays alive at the widest places: the encoder's attention scores and their softmax beside rows
    of its width, or its MLP; in the head, the finest features before and after a convolution, with the mask it
    starts from and the features that all iterations read.

    Args:
      config: of the model.
      head: its refinement head.
    """
    vision, embed = config.vision, config.refiner.embed
    patches, pixels = vision.grid**2, vision.crop**2
    rows = patches * vision.width
    attention = 3 * rows + 2 * vision.heads * patches**2
    encoder = 6 * rows + max(attention, 2 * patches * vision.mlp_width)
    fine = 4**head.doublings * patches * embed // 2**head.doublings
    # A first convolution of the mask encoder has a quarter of the mask's pixels.
    drawn = max(3 * fine, 3 * config.refiner.mask_encoder_widths[0] * pixels // 4)
    return FLOAT32 * max(encoder, 2 * rows + 2 * patches * embed + 2 * pixels + drawn) + 3 * pixels


def require_memory(config: ModelConfig, head: RefinementHead, batch: int, *, parameters: int, available: int) -> None:
    """Refuses batches that cannot fit.

    Args:
      config: of the model.
      head: its refinement head.
      batch: crops side by side.
      parameters: bytes of the encoder's and the head's parameters.
      available: bytes of the device's memory.

    Raises:
      UserError: names what is needed, what there is, and the batch that fits.
    """
    each = bytes_per_crop(config, head)
    if parameters + batch * each <= available:
        return
    fitting = max(available - parameters, 0) // each
    advice = f"a batch of {fitting} fits: set --refine-batch {fitting}"
    if not fitting:
        advice = "not even one crop fits: pass --no-refine"
    raise UserError(
        f"refining {batch} crops of {config.vision.crop} px side by side needs {batch * each / GIB:.2f} GiB beside "
        f"{parameters / GIB:.2f} GiB of parameters, and the device has {available / GIB:.2f} GiB; {advice}"
    )
