"""Feature set `whisper`: neither level nor silence counts, every frame of speech does."""

from __future__ import annotations

import re
from pathlib import Path

import librosa
import numpy as np
import pytest
from conftest import noisy

from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import whisper
from speechemo_cli.files import sha256_file

ROOT = Path(__file__).parents[1]
SR = whisper.SR


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return synthesise(voice_of(1, 0), "angry", 1, 1, np.random.default_rng(0))


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    return synthesise(voice_of(2, 0), "sad", 1, 2, np.random.default_rng(0))


def room_noise(seconds: float) -> np.ndarray:
    return (1e-4 * np.random.default_rng(1).standard_normal(round(seconds * SR))).astype(np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference of the features."""
    return float(np.sqrt(np.square(whisper.compute(a) - whisper.compute(b)).mean()))


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("n", [201, 1600, SR, 2 * SR + 79])
def test_mel_power_is_librosas_without_the_last_frame(rng: np.random.Generator, n: int) -> None:
    y = noisy(rng, n / SR, SR)

    power = whisper.mel_power(y)

    expected = librosa.feature.melspectrogram(
        y=y, sr=SR, n_fft=400, hop_length=160, n_mels=80, center=True, pad_mode="reflect"
    )
    np.testing.assert_allclose(power, expected.T[:-1], rtol=1e-3, atol=1e-6 * expected.max())


def test_fixed_level_is_whispers_own_scaling_but_for_the_level(voice: np.ndarray) -> None:
    frames = np.log10(np.maximum(whisper.mel_power(voice), 1e-10))

    levelled = whisper.fixed_level(frames)

    whispers = (np.maximum(frames, frames.max() - 8) + 4) / 4
    shift = (levelled - whispers)[frames > frames.max() - 6]
    assert np.ptp(shift) < 1e-5
    loudest = np.sort(levelled.max(axis=1))
    assert loudest[-11] == pytest.approx((1.5 + 4) / 4)
    assert levelled.min() >= loudest[-11] - 2 - 1e-6


def test_compute_takes_any_level_for_the_same_and_leaves_silence_out(
    voice: np.ndarray, other: np.ndarray
) -> None:
    limit = distance(voice, other)
    for gain in (31.0, 0.1):
        assert distance(voice, np.float32(gain) * voice) < 0.1 * limit
    # Before, behind, and between two syllables, where the frames are quietest.
    level = np.convolve(np.square(voice), np.ones(800), "same")[SR // 2 : -SR // 2]
    for at in (0, len(voice), SR // 2 + int(level.argmin())):
        assert distance(voice, np.insert(voice, at, room_noise(2))) < 0.25 * limit


def test_is_speech_finds_what_is_between_pauses(voice: np.ndarray) -> None:
    room = room_noise(1)
    speech = whisper.is_speech(whisper.mel_power(np.concatenate([room, voice, room, voice])))

    n = len(voice) // 160
    # A voice has a third of a second of its room's noise at either end.
    inside = np.zeros(len(speech), bool)
    for start in (100, 200 + n):
        inside[start + 30 : start + n - 30] = True
    assert not speech[~inside].any()
    assert speech[inside].mean() > 0.85


def test_is_speech_ignores_a_click(voice: np.ndarray) -> None:
    clicked = np.concatenate([np.zeros(SR, np.float32), voice])
    clicked += 1e-4 * np.random.default_rng(1).standard_normal(len(clicked)).astype(np.float32)
    clicked[SR // 2] = 0.9

    assert not whisper.is_speech(whisper.mel_power(clicked))[40:60].any()


@pytest.mark.parametrize("seconds", [0.2, 10.0])
@pytest.mark.parametrize("kind", ["silence", "noise", "buzz"])
def test_compute_takes_any_sound_of_any_length(kind: str, seconds: float) -> None:
    rng = np.random.default_rng(0)
    n = round(seconds * SR)
    y = {
        "silence": np.zeros(n, np.float32),
        "noise": (0.1 * rng.standard_normal(n)).astype(np.float32),
        "buzz": noisy(rng, seconds, SR),
    }[kind]

    features = whisper.compute(y)

    assert features.shape == (1, whisper.DIM)
    assert np.isfinite(features).all()
    assert (features.reshape(4, 2, 384)[:, 1] >= 0).all()


@pytest.mark.parametrize("n", [1, 299, 300, 301, 450, 451, 1000, 2001])
def test_windows_cover_every_frame(n: int) -> None:
    windows = list(whisper.windows(n))

    covered = np.zeros(n, int)
    for window in windows:
        covered[window] += 1
        assert window.stop - window.start == min(n, 300)
    assert covered.min() >= 1
    assert (len(windows) == 1) == (n <= 300)


def test_statistics_are_those_of_all_windows_together(voice: np.ndarray, other: np.ndarray) -> None:
    outputs = []

    def encode(frames: np.ndarray) -> np.ndarray:
        outputs.append(np.random.default_rng(len(outputs)).normal(5, 3, (1, 4, 150, 384)).astype(np.float32))
        return outputs[-1]

    features = whisper.compute(np.concatenate([voice, other] * 2), encode)

    joined = np.concatenate(outputs, axis=2)[0]
    assert len(outputs) > 2
    expected = np.concatenate([joined.mean(axis=1), joined.std(axis=1)], axis=1)
    np.testing.assert_allclose(features, expected.reshape(1, -1), rtol=1e-4)


def test_compute_copies_are_others_of_the_same_clip(voice: np.ndarray) -> None:
    copies = whisper.compute_copies(voice, "key", 2)

    assert copies.shape == (2, 3072)
    np.testing.assert_array_equal(copies[:1], whisper.compute_copies(voice, "key", 1))
    assert not np.allclose(copies[0], copies[1])
    assert whisper.compute_copies(voice, "key", 0).shape == (0, 3072)


@pytest.mark.parametrize("suffix", [".npz", ".tflite"])
def test_notice_has_the_hashes_of_the_files_of_the_encoder(suffix: str) -> None:
    path = whisper.ENCODER.with_suffix(suffix)
    hashes = dict(
        reversed(line.split())
        for line in re.findall(r"^[0-9a-f]{64} .+$", (ROOT / "NOTICE").read_text(), re.M)
    )

    assert hashes[path.relative_to(ROOT).as_posix()] == sha256_file(path)
