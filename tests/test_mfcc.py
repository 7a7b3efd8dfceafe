"""Mean MFCCs against librosa's."""

from __future__ import annotations

import dataclasses
import inspect

import librosa
import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.features import FEATURE_SETS, mfcc


def assert_librosas(y: np.ndarray, config: MfccConfig) -> None:
    ours = mfcc.compute(y, config.sr, config)
    expected = librosa.feature.mfcc(y=y, **dataclasses.asdict(config)).mean(axis=1)
    assert ours.shape == (1, config.n_mfcc)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], expected, atol=1e-3)


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
        "speech between digital silences": np.pad(voice, sr),
        "constant": np.full(sr, 0.25, np.float32),
        "0.2 s": harmonic(0.2, sr),
        "1 sample": noise[:1],
        "shorter than a window": noise[:2047],
    }


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("name", list(signals()))
def test_compute_is_the_mean_of_librosas_mfcc(name: str) -> None:
    assert_librosas(signals()[name], MfccConfig())


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
def test_compute_follows_its_config(config: MfccConfig, rng: np.random.Generator) -> None:
    y = harmonic(0.8, config.sr)
    assert_librosas(y + 0.01 * rng.standard_normal(len(y)).astype(np.float32), config)
    assert FEATURE_SETS["mfcc"].dim(Config(mfcc=config)) == config.n_mfcc


def test_config_has_the_defaults_of_librosa() -> None:
    spectrogram = inspect.signature(librosa.feature.melspectrogram).parameters
    config = MfccConfig()

    assert config.sr == inspect.signature(librosa.load).parameters["sr"].default
    assert (config.n_fft, config.hop_length) == (
        spectrogram["n_fft"].default,
        spectrogram["hop_length"].default,
    )
    assert config.n_mels == inspect.signature(librosa.filters.mel).parameters["n_mels"].default
