"""From samples to numbers. Each feature set is one module of pure functions of (y, sr)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechemo_cli.features import logmel, mfcc

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.config import Config


@dataclass(frozen=True)
class FeatureSet:
    """One way to turn a clip into numbers.

    Attributes
    ----------
    name : str
        Also the name of its section in the config.
    version : int
        Raised whenever the code gives other numbers for the same config, so that stored ones lapse.
    compute : callable
        `(y, sr, section) -> np.ndarray [shape=(frames, dim), dtype=float32]`.
    dim : callable
        `(section) -> int`, the width of a frame.
    window : callable
        `(section) -> int`, samples of its longest window.
    """

    name: str
    version: int
    compute: Callable[[NDArray[np.float32], int, Any], NDArray[np.float32]]
    dim: Callable[[Any], int]
    window: Callable[[Any], int]

    def section(self, config: Config) -> Any:
        """Return this set's part of the config."""
        return getattr(config, self.name)

    def fingerprint(self, config: Config) -> str:
        """Key of the stored numbers."""
        return config.fingerprint(self.name, self.version)


FEATURE_SETS: dict[str, FeatureSet] = {
    "mfcc": FeatureSet(
        "mfcc",
        mfcc.VERSION,
        mfcc.compute,
        lambda section: int(section.n_mfcc),
        lambda section: int(section.n_fft),
    ),
    "logmel": FeatureSet(
        "logmel",
        logmel.VERSION,
        logmel.compute,
        lambda section: 4 * int(section.n_mels),
        lambda section: 2 * int(section.n_fft),
    ),
}
