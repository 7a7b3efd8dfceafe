"""The feature sets as layers give the numbers of the feature modules."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.export import frontend
from speechemo_cli.features import FEATURE_SETS, whisper
from speechemo_cli.models import load_keras, training


@cache
def front_end(feature_set: str, config: Config = Config(), quantised: bool = False) -> Any:  # noqa: B008
    """The front end before a network that changes nothing."""
    keras = load_keras()
    features = FEATURE_SETS[feature_set]
    same = keras.Input((features.dim(config),))
    network = keras.Model(same, keras.layers.Activation("linear")(same))
    return frontend.waveform_model(network, feature_set, config, quantised=quantised)


def spoken(emotion: str = "angry") -> np.ndarray:
    return synthesise(voice_of(3, 0), emotion, 1, 1, np.random.default_rng(0))


def signals(sr: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    pause = (1e-4 * rng.standard_normal(sr)).astype(np.float32)
    return {
        "quiet noise": (1e-3 * rng.standard_normal(sr)).astype(np.float32),
        "a short voice": spoken()[8000 : 8000 + int(0.3 * sr)],
        "a long voice with pauses": np.concatenate(
            [spoken(), pause, spoken("sad"), spoken("happy"), pause, spoken("calm")]
        ),
        "a long noise": (0.1 * rng.standard_normal(5 * sr)).astype(np.float32),
        "the shortest": harmonic(1.0, sr)[4000:4201],
    }


@pytest.mark.parametrize("name", [*signals(16000), "digital silence"])
def test_whisper_layers_give_the_features_of_the_module(name: str) -> None:
    y = {**signals(16000), "digital silence": np.zeros(16000, np.float32)}[name]
    network = front_end("whisper").get_layer("front_end").encoder
    if name == "a long voice with pauses":  # it is cut, and read in windows
        speech = whisper.is_speech(whisper.mel_power(y))
        assert np.count_nonzero(np.diff(speech.astype(int)) == -1) >= 3
        assert len(list(whisper.windows(np.count_nonzero(speech)))) >= 3

    received = training.predict(front_end("whisper"), y[None])

    # By the same float network: what is rounded is compared below.
    expected = whisper.compute(y, lambda x: np.asarray(network(x, training=False)))
    np.testing.assert_allclose(received, expected, atol=5e-3)


def test_quantised_encoder_is_nearer_to_the_litert_file() -> None:
    y = spoken()
    expected = whisper.compute(y)

    rounded = training.predict(front_end("whisper", quantised=True), y[None])
    plain = training.predict(front_end("whisper"), y[None])

    assert np.square(rounded - expected).sum() < 0.25 * np.square(plain - expected).sum()
    assert np.corrcoef(rounded[0], expected[0])[0, 1] > 0.9998


@pytest.mark.parametrize(
    "section",
    [
        MfccConfig(),
        MfccConfig(sr=16000, n_mfcc=13, n_mels=40, n_fft=400, hop_length=160),
        MfccConfig(sr=8000, n_mfcc=20, n_mels=30, n_fft=301, hop_length=80),
    ],
    ids=["default", "no power of two", "odd"],
)
def test_mfcc_layers_give_the_features_of_the_module(section: MfccConfig) -> None:
    features, config = FEATURE_SETS["mfcc"], Config(mfcc=section)
    layers = front_end("mfcc", config)
    for name, y in signals(16000).items():
        if len(y) < features.shortest(config):
            y = np.tile(y, 8)

        received = training.predict(layers, y[None])

        expected = features.compute(y, config, "")
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=2e-3, err_msg=name)
