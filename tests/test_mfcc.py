"""Mean MFCCs against librosa's."""

from __future__ import annotations

import inspect

import librosa
import numpy as np
import pytest
from conftest import harmonic
from scipy import fft

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.corpus.synthetic import SR, synthesise, voice_of
from speechemo_cli.features import FEATURE_SETS, mfcc
from speechemo_cli.features.spectrum import mel_spectrogram


def librosas(y: np.ndarray, config: MfccConfig) -> np.ndarray:
    return librosa.feature.mfcc(
        y=y,
        sr=config.sr,
        n_mfcc=config.n_mfcc,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
    ).mean(axis=1)


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    sr = MfccConfig().sr
    voice = harmonic(1.5, sr)
    noise = rng.standard_normal(sr).astype(np.float32)
    return {
        "buzz": voice,
        "buzz in noise": voice + 0.01 * rng.standard_normal(len(voice)).astype(np.float32),
        "noise": 0.1 * noise,
        "quiet noise": 1e-4 * noise,
        "quiet buzz": 0.003 * voice,
        "clipped": np.clip(20 * voice, -1, 1),
        "beyond full scale": 30 * voice,
        # The top_db floor only shows where part of the clip is more than 80 dB below its loudest.
        "speech between digital silences": np.concatenate([np.zeros(sr), voice, np.zeros(sr)]).astype(
            np.float32
        ),
        "constant": np.full(sr, 0.25, np.float32),
        "0.2 s": harmonic(0.2, sr),
    }


@pytest.mark.parametrize("name", list(signals()))
def test_it_is_the_mean_of_librosas_mfcc(name: str) -> None:
    y, config = signals()[name], MfccConfig()
    ours = mfcc.compute(y, config.sr, config)
    assert ours.shape == (1, 40)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], librosas(y, config), atol=1e-3)


@pytest.mark.parametrize("emotion", ["neutral", "angry", "sad", "surprised"])
@pytest.mark.parametrize("actor", [1, 2])
def test_it_is_librosas_on_synthetic_voices(emotion: str, actor: int) -> None:
    y = synthesise(voice_of(actor, 0), emotion, 2, 1, np.random.default_rng(actor))
    config = MfccConfig(sr=SR)
    np.testing.assert_allclose(mfcc.compute(y, SR, config)[0], librosas(y, config), atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        MfccConfig(n_mfcc=13, n_fft=1024),
        MfccConfig(n_mfcc=13, n_fft=1024, hop_length=1024),
        MfccConfig(sr=16000, n_mfcc=20, n_fft=512, hop_length=160, n_mels=40),
        MfccConfig(sr=8000, n_mfcc=26, n_mels=26, n_fft=256, hop_length=80),
        MfccConfig(n_mfcc=1),
        MfccConfig(n_mfcc=128),
    ],
    ids=str,
)
def test_it_follows_its_config(config: MfccConfig, rng: np.random.Generator) -> None:
    y = harmonic(0.8, config.sr)
    y = y + 0.01 * rng.standard_normal(len(y)).astype(np.float32)
    ours = mfcc.compute(y, config.sr, config)
    assert ours.shape == (1, config.n_mfcc)
    np.testing.assert_allclose(ours[0], librosas(y, config), atol=1e-3)


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("n", [1, 500, 2047])
def test_a_clip_shorter_than_a_window_gives_librosas_numbers_too(n: int, rng: np.random.Generator) -> None:
    y, config = rng.standard_normal(n).astype(np.float32), MfccConfig()
    np.testing.assert_allclose(mfcc.compute(y, config.sr, config)[0], librosas(y, config), atol=1e-3)


@pytest.mark.parametrize("n_mels", [26, 40, 128])
def test_taking_the_mean_first_gives_the_orthonormal_cosine_transform(
    n_mels: int, rng: np.random.Generator
) -> None:
    config = MfccConfig(sr=16000, n_mfcc=n_mels, n_mels=n_mels, n_fft=1024)
    y = rng.standard_normal(8000).astype(np.float32)
    mel = mel_spectrogram(y, 16000, n_fft=1024, hop_length=512, n_mels=n_mels, pad_mode="constant")
    frames = fft.dct(10 * np.log10(mel.astype(np.float64)), norm="ortho", axis=1)
    np.testing.assert_allclose(mfcc.compute(y, 16000, config)[0], frames.mean(axis=0), atol=1e-3)


def test_gain_moves_the_first_coefficient_alone(rng: np.random.Generator) -> None:
    config = MfccConfig()
    y = 0.05 * rng.standard_normal(config.sr).astype(np.float32)
    moved = mfcc.compute(4 * y, config.sr, config)[0] - mfcc.compute(y, config.sr, config)[0]
    # A gain adds the same number of dB to every band; an orthonormal DCT puts all of it in c0.
    np.testing.assert_allclose(moved[0], 20 * np.log10(4) * np.sqrt(config.n_mels), atol=1e-2)
    np.testing.assert_allclose(moved[1:], 0, atol=1e-3)


@pytest.mark.parametrize("n_mfcc", [13, 40])
def test_the_width_that_the_feature_set_promises_is_the_width_it_computes(n_mfcc: int) -> None:
    config = Config(mfcc=MfccConfig(n_mfcc=n_mfcc))
    kind = FEATURE_SETS["mfcc"]
    y = harmonic(0.3, config.mfcc.sr)
    assert kind.compute(y, config, "key").shape == (1, kind.dim(config))


def test_config_has_the_defaults_of_librosa() -> None:
    spectrogram = inspect.signature(librosa.feature.melspectrogram).parameters
    config = MfccConfig()

    assert config.sr == inspect.signature(librosa.load).parameters["sr"].default
    assert (config.n_fft, config.hop_length) == (
        spectrogram["n_fft"].default,
        spectrogram["hop_length"].default,
    )
    assert config.n_mels == inspect.signature(librosa.filters.mel).parameters["n_mels"].default
