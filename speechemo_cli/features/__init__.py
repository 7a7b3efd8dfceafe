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
        `(y, section, key) -> np.ndarray [shape=(rows, dim), dtype=float32]`: samples at the rate of the
        set, its section of the config and the hash of the clip's content.
    dim : callable
        `(section) -> int`, the width of a row.
    sr : callable
        `(section) -> int`, the rate in Hz of the samples it reads.
    shortest : callable
        `(section) -> int`, samples of the shortest clip it takes as it is.
    condition : str
        Name of the recording condition that clips are brought to before; empty for clips as they are.
    """

    name: str
    version: int
    compute: Callable[[NDArray[np.float32], Any, str], NDArray[np.float32]]
    dim: Callable[[Any], int]
    sr: Callable[[Any], int]
    shortest: Callable[[Any], int]
    condition: str = ""

    def section(self, config: Config) -> Any:
        """Return this set's part of the config; None where there is nothing to configure."""
        return getattr(config, self.name.partition("@")[0], None)

    def settings(self, config: Config) -> dict[str, Any]:
        """Return the same as plain values."""
        section = self.section(config)
        return {} if section is None else asdict(section)

    def fingerprint(self, config: Config) -> str:
        """Key of the stored numbers."""
        return config.fingerprint(self.name, self.version)


_WHISPER = FeatureSet(
    "whisper",
    whisper.VERSION,
    lambda y, _section, _key: whisper.compute(y),
    lambda _section: whisper.DIM,
    lambda _section: whisper.SR,
    lambda _section: whisper.N_FFT // 2 + 1,
)
FEATURE_SETS: dict[str, FeatureSet] = {
    "mfcc": FeatureSet(
        "mfcc",
        mfcc.VERSION,
        lambda y, section, _key: mfcc.compute(y, section.sr, section),
        lambda section: int(section.n_mfcc),
        lambda section: int(section.sr),
        lambda section: int(section.n_fft) // 2 + 1,
    ),
    "whisper": _WHISPER,
    # The same of copies of the clip, for training.
    "augment": replace(
        _WHISPER,
        name="augment",
        compute=lambda y, section, key: whisper.compute_copies(y, key, section.copies),
    ),
}


def feature_set(name: str) -> FeatureSet:
    """Return a feature set.

    Parameters
    ----------
    name : str
        One of `FEATURE_SETS`, or `whisper@telephone` for the same of clips under a condition
        (`augment.CONDITIONS`).
    """
    kind, _, condition = name.partition("@")
    return replace(FEATURE_SETS[kind], name=name, condition=condition) if condition else FEATURE_SETS[kind]
