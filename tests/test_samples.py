"""Samples of one channel or the mean of all: offsets, what cancels, and resampling as librosa has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
from audio_cases import SR, decoded, encoded, voice
from conftest import harmonic

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig

CONFIG = AudioConfig()
RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]


@pytest.mark.parametrize("sr", RATES)
@pytest.mark.parametrize("target", [16000, 22050])
def test_resample_keeps_a_tone(sr: int, target: int) -> None:
    y = reader.resample((0.5 * np.sin(2 * np.pi * 440 * np.arange(sr // 2) / sr)).astype("f"), sr, target)
    inside = slice(target // 20, -target // 20)  # the filter rings at the ends
    analytic = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(y)) / target)
    np.testing.assert_allclose(y[inside], analytic[inside], atol=2e-3)


@pytest.mark.parametrize("target", [8000, 16000, 22050])
@pytest.mark.parametrize("sr", RATES)
def test_resample_is_that_of_librosa_load(
    sr: int, target: int, write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    # A length that divides by nothing, so that the rounding of the number of samples shows.
    y = (0.1 * rng.standard_normal((round(0.25 * sr) + 7, 2))).astype(np.float32)
    path = write_clip(y=y, sr=sr)
    expected, _ = librosa.load(path, sr=target)
    got = reader.resample(reader.read(path, CONFIG).y, sr, target)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_resample_to_the_same_rate_changes_nothing() -> None:
    y = harmonic(0.3, 16000)
    np.testing.assert_array_equal(reader.resample(y, 16000, 16000), y)


@pytest.mark.parametrize(("share", "warned"), [(0.5, False), (0.75, True), (0.9, True)])
def test_channels_that_cancel_are_warned_about(share: float, warned: bool) -> None:
    y = voice()
    warnings = decoded(encoded(np.stack([y, -share * y], axis=1))).warnings

    assert [warning.split(":")[0] for warning in warnings] == ["channels cancel"] * warned


@pytest.mark.parametrize("channels", [2, 3, 8, 32])
def test_one_voice_on_one_of_many_channels_cancels_nothing(channels: int) -> None:
    y = np.zeros((SR, channels), np.float32)
    y[:, 1] = voice(1.0)

    assert decoded(encoded(y)).warnings == ()


@pytest.mark.parametrize("offset", [-0.4, 0.02, 0.3])
def test_without_offset_takes_it_out(offset: float) -> None:
    y = 0.5 * voice()

    recording = reader.as_recording(y + np.float32(offset), SR, CONFIG)

    np.testing.assert_allclose(recording.y, y - y.mean(), atol=1e-6)
    assert [warning.split(" of")[0] for warning in recording.warnings] == [f"offset: {offset:+.2g}"]


@pytest.mark.parametrize("offset", [0.0, 0.001])
def test_without_offset_leaves_samples_that_have_none(offset: float) -> None:
    y = voice() + np.float32(offset)

    assert reader.as_recording(y, SR, CONFIG).y is y


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_without_offset_leaves_what_is_not_finite(bad: float) -> None:
    y = voice() + np.float32(0.3)
    y[::7] = bad

    recording = reader.as_recording(y, SR, CONFIG)

    assert (recording.y is y, recording.warnings) == (True, ())
