"""The front end inside exported networks hears what librosa and the feature modules hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.audio import reader
from speechemo_cli.config import AudioConfig, Config, LogmelConfig, MfccConfig
from speechemo_cli.corpus.layouts import Walk
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import FEATURE_SETS, logmel
from speechemo_cli.models import frontend, training, v3
from speechemo_cli.models.keras_backend import load_keras

DATA = Path(__file__).parent.parent / "data"


def hear(feature_set: str, config: Config, y: np.ndarray, frames: int = v3.FRAMES) -> np.ndarray:
    """What a network would get of a waveform: the front end before a network that changes nothing."""
    keras = load_keras()
    dim = FEATURE_SETS[feature_set].dim(FEATURE_SETS[feature_set].section(config))
    shape = (frames, dim) if feature_set == "logmel" else (dim,)
    same = keras.Input(shape)
    network = keras.Model(same, keras.layers.Activation("linear")(same))
    model = frontend.waveform_model(network, feature_set, config)
    return training.predict(model, y[None])[0]


def signals(sr: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    voice = synthesise(voice_of(3, 0), "angry", 1, 1, rng)
    return {
        "buzz": harmonic(1.3, sr) + 1e-3 * rng.standard_normal(round(1.3 * sr)).astype(np.float32),
        "quiet noise": (1e-3 * rng.standard_normal(sr)).astype(np.float32),
        "a voice": reader.resample(voice.astype(np.float32), 48000, sr),
        "a long one": (0.1 * rng.standard_normal(5 * sr)).astype(np.float32),
        "the shortest": harmonic(0.2, sr),
    }


@pytest.mark.parametrize("name", signals(16000))
def test_log_mel_frames_are_librosas(name: str) -> None:
    y = signals(16000)[name]
    config = Config(logmel=LogmelConfig(trim_nepers=0.0))
    n = 1 + len(y) // 160

    heard = hear("logmel", config, y, frames=n)

    short, long, _ = logmel.columns(heard.shape[1])
    for part, n_mels, n_fft, win_length in ((short, 64, 512, 400), (long, 128, 1024, 1024)):
        power = librosa.feature.melspectrogram(
            y=y, sr=16000, n_fft=n_fft, win_length=win_length, hop_length=160,
            n_mels=n_mels, fmin=50, fmax=8000, pad_mode="reflect",
        )  # fmt: skip
        # Where there is next to nothing, float32 has no more digits.
        loud = 1e-7 * power.max() < power.T
        np.testing.assert_allclose(heard[:, part][loud], np.log(power.T + 1e-10)[loud], atol=1e-3)
        np.testing.assert_allclose(np.exp(heard[:, part]), power.T, rtol=1e-4, atol=1e-4 * power.max())


@pytest.mark.parametrize("name", signals(22050))
def test_mean_mfccs_are_librosas(name: str) -> None:
    y = signals(22050)[name]

    heard = hear("mfcc", Config(), y)

    expected = librosa.feature.mfcc(y=y, sr=22050, n_mfcc=40).mean(axis=1)
    np.testing.assert_allclose(heard, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("trim_nepers", [0.0, 2.0, 7.5])
@pytest.mark.parametrize("frames", [1, 60, 224, 500])
def test_clips_are_trimmed_and_brought_to_a_length_as_for_training(trim_nepers: float, frames: int) -> None:
    rng = np.random.default_rng(1)
    room = 1e-4 * rng.standard_normal(60000).astype(np.float32)
    config = Config(logmel=LogmelConfig(trim_nepers=trim_nepers))
    for seconds in (0.35, 1.11, 2.62):
        y = np.pad(harmonic(seconds, 16000), (8000, 5000))
        # Nowhere is nothing, of which float32 would have no digits.
        y += room[: len(y)]
        computed = logmel.compute(y, 16000, config.logmel)

        heard = hear("logmel", config, y, frames)

        n, dim = computed.shape
        expected = np.empty((frames, dim), np.float32)
        for part in logmel.columns(dim):
            expected[:, part] = computed[:, part].min()
        kept, at = max(0, (n - frames) // 2), max(0, (frames - n) // 2)
        expected[at : at + min(n, frames)] = computed[kept : kept + frames]
        np.testing.assert_allclose(heard, expected, atol=2e-3)
        if frames == v3.FRAMES:
            np.testing.assert_allclose(v3.prepare([computed])[0], expected)


def test_it_follows_its_config(rng: np.random.Generator) -> None:
    y = 0.1 * rng.standard_normal(8000).astype(np.float32)
    changed: dict[str, Any] = {"sr": 8000, "n_fft": 256, "hop_length": 80}
    config = Config(
        mfcc=MfccConfig(n_mfcc=13, n_mels=40, **changed),
        logmel=LogmelConfig(n_mels=20, win_length=200, fmax=4000.0, **changed),
    )

    for name in ("mfcc", "logmel"):
        section = FEATURE_SETS[name].section(config)
        expected = FEATURE_SETS[name].compute(y, 8000, section)
        heard = hear(name, config, y, frames=len(expected))
        np.testing.assert_allclose(heard.reshape(expected.shape), expected, atol=2e-3)


@pytest.mark.skipif(not DATA.is_dir() or not any(Walk(str(DATA))), reason="data/ holds no clips")
def test_on_real_clips_it_hears_what_training_heard() -> None:
    for path in list(Walk(str(DATA)))[::101][:12]:
        recording = reader.read(path, AudioConfig())
        for name, expected_of in (("logmel", lambda x: v3.prepare([x])[0]), ("mfcc", lambda x: x[0])):
            section = FEATURE_SETS[name].section(Config())
            y = reader.resample(recording.y, recording.sr, section.sr)
            expected = expected_of(FEATURE_SETS[name].compute(y, section.sr, section))
            np.testing.assert_allclose(hear(name, Config(), y), expected, atol=5e-3)
