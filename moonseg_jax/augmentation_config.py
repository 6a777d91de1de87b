"""Which changes of training images are drawn, and how often."""

from __future__ import annotations

import dataclasses

from moonseg_jax.config import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities of changes that keep every phrase true; where that cannot be known, an image stays as it is."""

    flip: float = 0.0
    """Mirrored, left and right exchanged in the phrases."""
    crop: float = 0.0
    """Cut down to a part that holds every target whole."""
    jitter: float = 0.0
    """Brightness, contrast and saturation changed; hues stay, because phrases name colours."""
    least_side: float = 0.6
    """Of a crop, as a share of the image's side."""
    strength: float = 0.25
    """Brightness, contrast and saturation are multiplied by 1 - strength to 1 + strength."""

    def __post_init__(self) -> None:
        """Refuses numbers that are no shares.

        Raises:
          ConfigError: names the setting.
        """
        for name in ("flip", "crop", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}: a probability lies in 0 to 1")
        if not 0 < self.least_side <= 1:
            raise ConfigError(f"augmentation.least_side is {self.least_side}: it must be above 0 and at most 1")
        if not 0 <= self.strength < 1:
            raise ConfigError(f"augmentation.strength is {self.strength}: it must be at least 0 and below 1")
