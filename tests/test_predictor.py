"""Answers keep the order of the clips, and one bad clip costs itself alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import speechemo_cli
from speechemo_cli.config import AudioConfig, Config, MfccConfig
from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import mfcc
from speechemo_cli.inference.predictor import Answer, Predictor, Refusal
from speechemo_cli.models import artifact, training, version_module

LABELS = ("neutral", "happy", "angry")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).normal(0, 50, (30, 20)).astype(np.float32)
    network = version_module("v1").build(x, 3, version_module("v1").PRESET)
    trained_with = Config(mfcc=MfccConfig(n_mfcc=20))
    card = artifact.ModelCard("v1", LABELS, "mfcc", mfcc.VERSION, trained_with.to_dict(), seed=0, epochs=50)
    path = tmp_path_factory.mktemp("models") / "v1.keras"
    artifact.save(network, card, path)
    return path


def test_an_answer_is_the_networks_on_the_features_of_the_training(
    model_file: Path, write_clip: Callable[..., Path]
) -> None:
    import librosa

    clip = write_clip(seconds=1.5, sr=48000)
    y, sr = librosa.load(clip, sr=22050)
    features = librosa.feature.mfcc(y=y, sr=sr, n_mfcc=20).mean(axis=1)
    expected = training.predict(artifact.load(model_file)[0], features[None, :].astype(np.float32))[0]

    (answer,) = Predictor.open(model_file).predict([str(clip)])

    assert isinstance(answer, Answer)
    assert list(answer.probabilities) == list(LABELS)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert answer.confidence == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert answer.duration_s == pytest.approx(1.5)


def test_an_answer_below_the_least_confidence_is_uncertain_and_keeps_its_numbers(
    model_file: Path, write_clip: Callable[..., Path]
) -> None:
    clip = str(write_clip(seconds=0.5))
    (plain,) = Predictor.open(model_file).predict([clip])
    assert isinstance(plain, Answer)

    (enough,) = Predictor.open(model_file, min_confidence=plain.confidence).predict([clip])
    (doubted,) = Predictor.open(model_file, min_confidence=plain.confidence + 1e-6).predict([clip])

    assert plain.label in LABELS
    assert enough == plain
    assert doubted == replace(plain, label="uncertain")


def test_order_is_kept_around_broken_clips_and_across_batches(
    model_file: Path, write_clip: Callable[..., Path]
) -> None:
    good = [str(write_clip(f"{i}.wav", seconds=0.3 + i / 1000, f0=100 + i)) for i in range(70)]
    Path("text.wav").write_text("no audio")
    paths = [*good[:30], "text.wav", *good[30:], "missing.wav"]

    answers = list(Predictor.open(model_file).predict(paths))

    assert [answer.path for answer in answers] == paths
    assert [type(answer) for answer in answers].count(Refusal) == 2
    assert answers[30] == Refusal("text.wav", answers[30].error)  # type: ignore[union-attr]
    assert answers[-1] == Refusal("missing.wav", "no such file")
    assert answers[-2].duration_s == pytest.approx(0.369, abs=1e-3)  # type: ignore[union-attr]


def test_no_network_is_loaded_for_clips_that_cannot_be_read(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "load", lambda _: pytest.fail("the network was loaded"))

    assert list(Predictor.open(model_file).predict(["a.wav"])) == [Refusal("a.wav", "no such file")]


def test_the_limits_are_those_of_the_run(model_file: Path, write_clip: Callable[..., Path]) -> None:
    clip = str(write_clip(seconds=1.0))

    (refusal,) = Predictor.open(model_file, Config(audio=AudioConfig(max_duration_s=0.5))).predict([clip])

    assert isinstance(refusal, Refusal)
    assert "longer than 0.5 s" in refusal.error


def test_a_truncated_clip_is_answered_with_a_warning(
    model_file: Path, write_clip: Callable[..., Path]
) -> None:
    clip = write_clip(seconds=1.0)
    clip.write_bytes(clip.read_bytes()[:20_000])

    (answer,) = Predictor.open(model_file).predict([str(clip)])

    assert isinstance(answer, Answer)
    assert answer.warnings[0].startswith("truncated: the header promises 1.00 s")


def test_a_missing_model_is_said_before_any_clip_is_read() -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        Predictor.open("nowhere.keras")


def test_the_public_names_are_there_and_load_late() -> None:
    assert speechemo_cli.Predictor is Predictor
    assert set(speechemo_cli.__all__) <= set(dir(speechemo_cli)) | {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        speechemo_cli.Nonsense  # noqa: B018 - looking it up is the test
    assert "speechemo_cli.inference.predictor" in sys.modules
