"""From samples to numbers. Each feature set is one module of pure functions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.features import mfcc, whisper

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
        Also the name of its section in the config, where it has one.
    version : int
        Raised whenever the code gives other numbers for the same config, so that stored ones lapse.
    compute : callable
        `(y, config, key) -> np.ndarray [shape=(rows, dim), dtype=float32]`: samples at the rate of the
        set, and the hash of the clip's content.
    dim, sr, shortest : callable
        `(config) -> int`: the width of a row, the rate in Hz of the samples it reads, and samples of the
        shortest clip it takes as it is.
    condition : str
        Name of the recording condition that clips are brought to before; empty for clips as they are.
    """

    name: str
    version: int
    compute: Callable[[NDArray[np.float32], Config, str], NDArray[np.float32]]
    dim: Callable[[Config], int]
    sr: Callable[[Config], int]
    shortest: Callable[[Config], int]
    condition: str = ""

    def settings(self, config: Config) -> dict[str, Any]:
        """Return this set's part of the config; empty where there is nothing to configure."""
        section = getattr(config, self.name.partition("@")[0], None)
        return asdict(section) if section else {}

    def fingerprint(self, config: Config) -> str:
        """Key of the stored numbers."""
        return config.fingerprint(self.name, self.version)


_WHISPER = FeatureSet(
    "whisper",
    whisper.VERSION,
    compute=lambda y, _config, _key: whisper.compute(y),
    dim=lambda _config: whisper.DIM,
    sr=lambda _config: whisper.SR,
    shortest=lambda _config: whisper.N_FFT // 2 + 1,
)
FEATURE_SETS: dict[str, FeatureSet] = {
    "mfcc": FeatureSet(
        "mfcc",
        mfcc.VERSION,
        compute=lambda y, config, _key: mfcc.compute(y, config.mfcc.sr, config.mfcc),
        dim=lambda config: config.mfcc.n_mfcc,
        sr=lambda config: config.mfcc.sr,
        shortest=lambda config: config.mfcc.n_fft // 2 + 1,
    ),
    "whisper": _WHISPER,
    # The same of copies of the clip, for training.
    "augment": replace(
        _WHISPER,
        name="augment",
        compute=lambda y, config, key: whisper.compute_copies(y, key, config.augment.copies),
    ),
}


def feature_set(name: str) -> FeatureSet:
    """Return one of `FEATURE_SETS`; `mfcc@telephone` is one under a condition of `augment`."""
    kind, _, condition = name.partition("@")
    return replace(FEATURE_SETS[kind], name=name, condition=condition) if condition else FEATURE_SETS[kind]
