"""Log-mel frames against librosa's, and where trimming cuts."""

from __future__ import annotations

from dataclasses import replace

import librosa
import numpy as np
import pytest
from conftest import harmonic
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.config import LogmelConfig
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import FEATURE_SETS, logmel

SR = 16000
UNTRIMMED = LogmelConfig(trim_nepers=0.0)
# Frames by which the running mean and the window blur an edge: half of 11, and 512 samples.
BLUR = 5 + 4


def librosas(y: np.ndarray, config: LogmelConfig) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=y,
        sr=config.sr,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
        pad_mode="reflect",
    )
    return np.log(power + 1e-10).T


def doubled(config: LogmelConfig) -> LogmelConfig:
    """The long window's config: twice the bands, twice the window, nothing of it zero."""
    n_fft = 2 * config.n_fft
    return replace(config, n_mels=2 * config.n_mels, n_fft=n_fft, win_length=n_fft)


def speech(seconds: float, seed: int = 3) -> np.ndarray:
    """A buzz without the fade, in enough noise that every band holds something."""
    n = round(seconds * SR)
    rng = np.random.default_rng(seed)
    t = np.arange(n) / SR
    y = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 40))
    return (0.2 * y + 0.02 * rng.standard_normal(n)).astype(np.float32)


def room(seconds: float, level: float = 1e-4, seed: int = 4) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * SR))).astype(np.float32)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("make", [speech, room], ids=["speech", "noise"])
def test_untrimmed_frames_are_the_logarithm_of_librosas_mel_power(make, gain: float) -> None:
    y = np.float32(gain) * make(0.8)
    ours = logmel.compute(y, SR, UNTRIMMED)
    assert ours.dtype == np.float32
    short, long, _ = logmel.columns(ours.shape[1])
    np.testing.assert_allclose(ours[:, short], librosas(y, UNTRIMMED), atol=1e-3)
    np.testing.assert_allclose(ours[:, long], librosas(y, doubled(UNTRIMMED)), atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        LogmelConfig(n_mels=40, trim_nepers=0.0),
        LogmelConfig(sr=22050, n_fft=1024, win_length=1024, hop_length=256, fmax=11025.0, trim_nepers=0.0),
        LogmelConfig(
            sr=8000, n_fft=256, win_length=200, hop_length=80, fmin=0.0, fmax=4000.0, trim_nepers=0.0
        ),
    ],
    ids=str,
)
def test_it_follows_its_config(config: LogmelConfig, rng: np.random.Generator) -> None:
    y = 0.1 * rng.standard_normal(config.sr // 2).astype(np.float32)
    ours = logmel.compute(y, config.sr, config)
    assert ours.shape[1] == FEATURE_SETS["logmel"].dim(config) == 4 * config.n_mels
    short, long, _ = logmel.columns(ours.shape[1])
    np.testing.assert_allclose(ours[:, short], librosas(y, config), atol=1e-3)
    np.testing.assert_allclose(ours[:, long], librosas(y, doubled(config)), atol=1e-3)


@pytest.mark.parametrize("f0", [75.0, 110.0, 180.0, 300.0, 520.0])
@pytest.mark.parametrize("gain", [1e-3, 1.0])
def test_the_pitch_of_a_voice_is_where_it_is(f0: float, gain: float) -> None:
    t = np.arange(SR) / SR
    y = sum(np.cos(2 * np.pi * f0 * k * t + k) / k for k in range(1, int(3800 / f0)))
    frames = logmel.compute((gain * 0.1 * y).astype(np.float32), SR, UNTRIMMED)

    pitch = frames[20:-20, logmel.columns(frames.shape[1])[2]]

    heard = np.geomspace(60, 600, 64)[pitch.argmax(axis=1)]
    # An octave lower every second harmonic fits as well: the peak there may be as high, never higher.
    octave = np.round(np.log2(f0 / heard))
    assert set(octave) <= {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_allclose(heard * 2**octave, f0, rtol=0.03)
    # Between two of the 64 pitches the upper harmonics of a low voice fall out of step.
    assert pitch.max(axis=1).min() > 0.4


def test_noise_has_no_pitch_and_silence_none_at_all(rng: np.random.Generator) -> None:
    noise = logmel.compute(0.1 * rng.standard_normal(SR).astype(np.float32), SR, UNTRIMMED)
    silence = logmel.compute(np.zeros(SR, np.float32), SR, UNTRIMMED)
    _, _, pitch = logmel.columns(noise.shape[1])

    # The lowest periods are short beside the window, so a little is left there.
    assert np.abs(noise[:, pitch]).mean() < 0.15
    assert (silence[:, pitch] == 0).all()


def test_digital_silence_lies_at_the_floor_and_not_at_minus_infinity() -> None:
    frames = logmel.compute(np.zeros(SR, np.float32), SR, UNTRIMMED)
    mel = frames[:, : 3 * UNTRIMMED.n_mels]
    np.testing.assert_allclose(mel, np.log(1e-10), atol=1e-3)


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-4])
@pytest.mark.parametrize(("before", "after"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
def test_silence_before_and_after_speech_goes(before: float, after: float, level: float) -> None:
    y = np.concatenate([room(before, level), speech(1.0), room(after, level)])
    config = LogmelConfig()
    frames = logmel.compute(y, SR, config)
    assert abs(len(frames) - 100) <= 2 * BLUR
    whole = logmel.compute(y, SR, UNTRIMMED)
    first, last = logmel.speech_bounds(whole[:, : config.n_mels], config.trim_nepers)
    assert abs(first - 100 * before) <= BLUR
    assert abs(last - 100 * (before + 1.0)) <= BLUR
    np.testing.assert_array_equal(frames, whole[first:last])


def test_a_pause_inside_speech_stays() -> None:
    y = np.concatenate([room(0.5), speech(0.6), room(1.0), speech(0.6), room(0.5)])
    frames = logmel.compute(y, SR, LogmelConfig())
    assert abs(len(frames) - 220) <= 2 * BLUR
    level = frames[:, : LogmelConfig().n_mels].mean(axis=1)
    assert level[70:150].max() < level.max() - LogmelConfig().trim_nepers


def test_a_click_before_the_speech_does_not_begin_it() -> None:
    y = np.concatenate([room(1.0), speech(1.0), room(0.5)])
    clicked = y.copy()
    clicked[SR // 4] += 0.05
    count = len(logmel.compute(y, SR, LogmelConfig()))
    assert abs(len(logmel.compute(clicked, SR, LogmelConfig())) - count) <= 1


@pytest.mark.parametrize("gain", [0.1, 0.3, 3.0, 10.0])
@pytest.mark.parametrize("emotion", ["neutral", "angry", "sad"])
def test_gain_shifts_the_frames_and_moves_no_bound(gain: float, emotion: str) -> None:
    y = synthesise(voice_of(2, 0), emotion, 2, 1, np.random.default_rng(0))
    # Louder room noise than the corpus has, so that turned down it is still well above the floor.
    y = y + room(len(y) / SR, 1e-3)
    config = LogmelConfig()
    one, other = (logmel.compute(np.float32(g) * y, SR, config) for g in (1.0, gain))
    assert one.shape == other.shape
    mel = slice(0, 3 * config.n_mels)
    power = np.exp(one[:, mel].astype(np.float64)) - 1e-10
    np.testing.assert_allclose(other[:, mel], np.log(gain**2 * power + 1e-10), atol=5e-3)
    np.testing.assert_allclose(other[:, mel.stop :], one[:, mel.stop :], atol=1e-3)


def test_a_synthetic_clip_loses_the_room_noise_around_it() -> None:
    y = synthesise(voice_of(1, 0), "neutral", 1, 1, np.random.default_rng(0))
    whole = len(logmel.compute(y, SR, UNTRIMMED))
    # A third of a second stands before and after the sentence.
    assert whole - len(logmel.compute(y, SR, LogmelConfig())) > 45


@pytest.mark.parametrize(
    "y",
    [
        np.ones(1, np.float32),
        np.zeros(3200, np.float32),
        np.full(3200, 0.5, np.float32),
        np.eye(1, 3200, 1600, dtype=np.float32)[0],
        harmonic(0.2, SR),
    ],
    ids=["one sample", "zeros", "constant", "click", "shortest clip"],
)
@pytest.mark.parametrize("nepers", [0.01, 7.5])
def test_something_always_remains(y: np.ndarray, nepers: float) -> None:
    frames = logmel.compute(y, SR, LogmelConfig(trim_nepers=nepers))
    assert len(frames) >= 1
    assert np.isfinite(frames).all()


@settings(max_examples=40, deadline=None, database=None)
@given(
    levels=st.lists(st.floats(-23, 10, width=32), min_size=1, max_size=60),
    nepers=st.floats(0.01, 30),
)
def test_bounds_hold_the_loudest_moment_and_widen_with_the_threshold(
    levels: list[float], nepers: float
) -> None:
    frames = np.repeat(np.array(levels, np.float32)[:, None], 4, axis=1)
    first, last = logmel.speech_bounds(frames, nepers)
    assert 0 <= first < last <= len(frames)
    wider = logmel.speech_bounds(frames, 2 * nepers)
    assert wider[0] <= first
    assert wider[1] >= last
    padded = np.pad(levels, 5, mode="edge")
    smooth = np.array([padded[i : i + 11].mean() for i in range(len(levels))])
    # Two moments may be equally loud but for rounding; either way one of them is inside.
    assert smooth[first:last].max() >= smooth.max() - 1e-4
