"""Augmentation bends clips within the limits it was given, and keeps what makes them clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from speechemo_cli.models import augment
from speechemo_cli.models.augment import Augmentation

STILL = Augmentation((1, 1), (1, 1), 0, 0, 0, 0, 0, 0.0)


def ridge(n_frames: int = 120, n_mels: int = 64, frame: float = 60, band: float = 30) -> np.ndarray:
    """One bump in time and frequency on a floor of -10."""
    time, mel = np.arange(n_frames)[:, None], np.arange(n_mels)[None, :]
    bump = np.exp(-(((time - frame) / 6) ** 2) - ((mel - band) / 3) ** 2)
    return (-10 + 8 * bump).astype(np.float32)


def centre(frames: np.ndarray) -> tuple[float, float]:
    """Where the bump is: mean frame and band, weighted by what stands above the floor."""
    above = np.maximum(frames + 9.5, 0)
    return tuple(
        float((above.sum(axis=1 - axis) * np.arange(n)).sum() / above.sum())
        for axis, n in enumerate(frames.shape)
    )


def test_rules_that_allow_nothing_move_the_clip_by_a_few_frames_alone(rng: np.random.Generator) -> None:
    frames = ridge()

    bent = augment.bend(frames, np.ones(64, np.float32), STILL, rng)

    assert bent.shape == frames.shape
    assert bent.dtype == np.float32
    (at, band), (at_bent, band_bent) = centre(frames), centre(bent)
    assert abs(at - at_bent) < 8.5
    assert band_bent == pytest.approx(band, abs=0.05)
    assert bent.max() == pytest.approx(frames.max(), abs=0.3)


@pytest.mark.parametrize(("tempo", "width"), [(0.5, 2.0), (2.0, 0.5)])
def test_a_slower_tempo_makes_things_longer(tempo: float, width: float, rng: np.random.Generator) -> None:
    frames = ridge()
    rules = replace(STILL, stretch=(tempo, tempo))

    bent = augment.bend(frames, np.ones(64, np.float32), rules, rng)

    lengths = [(clip[:, 30] > -6).sum() for clip in (frames, bent)]
    assert lengths[1] / lengths[0] == pytest.approx(width, rel=0.2)


@pytest.mark.parametrize(("warp", "band"), [(0.8, 37.5), (1.25, 24.0)])
def test_a_warp_moves_the_formants_in_proportion(warp: float, band: float, rng: np.random.Generator) -> None:
    bent = augment.bend(ridge(), np.ones(64, np.float32), replace(STILL, warp=(warp, warp)), rng)

    assert centre(bent)[1] == pytest.approx(band, abs=0.6)


def test_noise_and_equaliser_are_as_strong_as_asked(rng: np.random.Generator) -> None:
    flat = np.full((400, 64), -5, np.float32)
    deviation = np.full(64, 2, np.float32)

    tilted = [augment.bend(flat, deviation, replace(STILL, tilt=0.25), rng) + 5 for _ in range(300)]
    noisy = [augment.bend(flat, deviation, replace(STILL, noise=0.25), rng) + 5 for _ in range(300)]

    # At its points the curve has the full deviation; no frame differs from another.
    assert np.std([clip[0, 0] for clip in tilted]) == pytest.approx(0.5, rel=0.15)
    assert max(float(np.ptp(clip, axis=0).max()) for clip in tilted) < 1e-5
    # A uniform strength up to 0.25 has a root mean square of 0.25 / sqrt(3).
    assert np.sqrt(np.mean(np.square(noisy))) == pytest.approx(2 * 0.25 / np.sqrt(3), rel=0.1)


def test_masks_are_no_wider_than_allowed(rng: np.random.Generator) -> None:
    rules = Augmentation(bands=10, frames=30)
    for _ in range(50):
        frames = np.ones((224, 64), np.float32)
        augment.mask(frames, np.zeros(64, np.float32), rules, rng)
        assert (frames == 0).all(axis=0).sum() <= 20
        assert (frames == 0).all(axis=1).sum() <= 60


def test_mixing_keeps_targets_and_clips_together(rng: np.random.Generator) -> None:
    # Constant clips: clip i is i everywhere, and so are its mixtures.
    x = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 30, 16)).copy()
    targets = np.eye(8, dtype=np.float32)
    rules = replace(STILL, mixup_share=1.0, mixup_beta=0.5)

    parts = [(slice(0, 16), rules)]
    out, mixed = augment.batch(x, targets, np.zeros(16), np.ones(16, np.float32), parts, rng)

    assert (mixed.max(axis=1) < 1).any()
    np.testing.assert_allclose(mixed.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(out[:, 15, 8], mixed @ np.arange(8), rtol=1e-4, atol=1e-4)


def test_the_clips_that_came_in_stay_as_they_were(rng: np.random.Generator) -> None:
    x = np.stack([ridge(band=20 + 3 * i) for i in range(4)])
    before, targets = x.copy(), np.eye(4, dtype=np.float32)

    parts = [(slice(0, 64), Augmentation(mixup_share=1.0))]
    augment.batch(x, targets, x.mean((0, 1)), x.std((0, 1)), parts, rng)

    assert np.array_equal(x, before)
    assert np.array_equal(targets, np.eye(4))


def test_the_parts_of_a_frame_stay_in_time_and_are_bent_by_their_own_rules(rng: np.random.Generator) -> None:
    x = np.stack([np.concatenate([ridge(), ridge(n_mels=128, band=60)], axis=1)] * 12)
    rules = replace(STILL, stretch=(0.5, 2.0))
    parts = [(slice(0, 64), rules), (slice(64, 192), replace(rules, shift=12.0))]

    out, _ = augment.batch(x, np.eye(12, dtype=np.float32), x.mean((0, 1)), x.std((0, 1)), parts, rng)

    centres = np.array([[centre(clip[:, part]) for part, _ in parts] for clip in out])
    np.testing.assert_allclose(centres[:, 0, 0], centres[:, 1, 0], atol=0.2)  # the same moment
    assert np.ptp(centres[:, 0, 0]) > 1  # though not the same in every clip
    np.testing.assert_allclose(centres[:, 0, 1], 30, atol=0.1)
    assert np.ptp(centres[:, 1, 1]) > 6
