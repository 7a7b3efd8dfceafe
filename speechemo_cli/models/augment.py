"""Training-time augmentation of log-mel frames: other voices, rooms and microphones from the same clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How far a training clip may be bent. Levels are in deviations of a band over the training clips.

    Attributes
    ----------
    stretch : (float, float)
        Range of the tempo.
    warp : (float, float)
        Range of the frequency scale: a longer or shorter vocal tract (VTLP, Jaitly & Hinton 2013).
    shift : float
        Bands up or down.
    tilt : float
        Deviation of a smooth random equaliser.
    noise : float
        Largest deviation of Gaussian noise.
    bands, frames : int
        Width of each of two frequency and two time masks, at most (SpecAugment, Park et al. 2019).
    mixup_share, mixup_beta : float
        Share of the batches that are mixed, and the parameter of the Beta distribution of the
        weights (Zhang et al. 2018).
    """

    stretch: tuple[float, float] = (0.8, 1.25)
    warp: tuple[float, float] = (0.94, 1.06)
    shift: float = 1.0
    tilt: float = 0.25
    noise: float = 0.25
    bands: int = 7
    frames: int = 21
    mixup_share: float = 0.7
    mixup_beta: float = 0.3


def bend(frames: Frames, deviation: Frames, rules: Augmentation, rng: np.random.Generator) -> Frames:
    """Change the tempo, the voice and the recording of one clip.

    Parameters
    ----------
    frames : np.ndarray [shape=(frames, n_mels), dtype=float32]
    deviation : np.ndarray [shape=(n_mels,), dtype=float32]
        Deviation of each band over the training clips.
    rules : Augmentation
    rng : np.random.Generator

    Returns
    -------
    np.ndarray [shape=(frames, n_mels), dtype=float32]
        As many frames as before: a faster clip is padded with its minimum, a slower one is cut.
    """
    n_frames, n_mels = frames.shape
    middle = (n_frames - 1) / 2
    time = middle + (np.arange(n_frames) - middle) * rng.uniform(*rules.stretch) + rng.uniform(-8, 8)
    scale, shift = rng.uniform(*rules.warp), rng.uniform(-rules.shift, rules.shift)
    band = np.clip(np.arange(n_mels) * scale + shift, 0, n_mels - 1)
    bent = _interpolate(_interpolate(frames, np.clip(time, 0, n_frames - 1), 0), band, 1)
    bent[(time < 0) | (time > n_frames - 1)] = frames.min()
    bent += deviation * _equaliser(n_mels, rules.tilt, rng)
    bent += deviation * rng.uniform(0, rules.noise) * rng.standard_normal(bent.shape, np.float32)
    return bent


def _interpolate(values: Frames, at: NDArray[np.float64], axis: int) -> Frames:
    """Read an array between its rows or columns."""
    low = np.minimum(at.astype(np.int64), values.shape[axis] - 2)
    weight = (at - low).astype(np.float32)
    if axis == 0:
        weight = weight[:, None]
    below, above = values.take(low, axis), values.take(low + 1, axis)
    out: Frames = below + weight * (above - below)
    return out


def _equaliser(n_mels: int, tilt: float, rng: np.random.Generator) -> Frames:
    """Draw a smooth curve over the bands: five random points, straight lines between."""
    points = rng.normal(0, tilt, 5)
    return np.interp(np.linspace(0, 4, n_mels), np.arange(5), points).astype(np.float32)


def mask(frames: Frames, fill: Frames, rules: Augmentation, rng: np.random.Generator) -> None:
    """Overwrite two stretches of bands and two of frames with `fill` [shape=(n_mels,)], in place."""
    n_frames, n_mels = frames.shape
    for _ in range(2):
        width = int(rng.integers(0, rules.bands + 1))
        first = int(rng.integers(0, n_mels - width + 1))
        frames[:, first : first + width] = fill[first : first + width]
        width = int(rng.integers(0, rules.frames + 1))
        first = int(rng.integers(0, n_frames - width + 1))
        frames[first : first + width] = fill


def batch(
    x: Frames,
    targets: NDArray[np.float32],
    mean: Frames,
    deviation: Frames,
    parts: Sequence[tuple[slice, Augmentation]],
    rng: np.random.Generator,
) -> tuple[Frames, NDArray[np.float32]]:
    """Bend, mask and mix the clips of a batch.

    Parameters
    ----------
    x : np.ndarray [shape=(clips, frames, dim), dtype=float32]
    targets : np.ndarray [shape=(clips, n_classes), dtype=float32]
        One-hot, or smoothed.
    mean, deviation : np.ndarray [shape=(dim,), dtype=float32]
        Of each column over the training clips.
    parts : sequence of (columns, rules)
        Neighbouring columns that mean neighbouring frequencies, and how far they may be bent. The tempo
        and the masks in time are the same for all parts of a clip; the first's rules say how clips are
        mixed.
    rng : np.random.Generator

    Returns
    -------
    x, targets : np.ndarray
        New arrays of the same shapes.
    """
    out = np.empty_like(x)
    for clip, changed, seed in zip(x, out, rng.integers(2**40, size=len(x)), strict=True):
        for columns, rules in parts:
            # The same draws for every part, so that they stay in time with one another.
            bent = bend(clip[:, columns], deviation[columns], rules, np.random.default_rng((seed, 0)))
            mask(bent, mean[columns], rules, np.random.default_rng((seed, 1)))
            changed[:, columns] = bent
    mixing = parts[0][1]
    if rng.random() < mixing.mixup_share:
        weights = rng.beta(mixing.mixup_beta, mixing.mixup_beta, len(out)).astype(np.float32)
        other = rng.permutation(len(out))
        out = weights[:, None, None] * out + (1 - weights[:, None, None]) * out[other]
        targets = weights[:, None] * targets + (1 - weights[:, None]) * targets[other]
    return out, targets
