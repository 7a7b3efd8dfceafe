"""Answers keep the order of the clips, and one bad clip costs itself alone."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import built, noisy

from speechemo_cli.audio import quality, reader
from speechemo_cli.config import AudioConfig, Config, MfccConfig
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.errors import AudioError, ClipError, ConfigError
from speechemo_cli.evaluation import report
from speechemo_cli.features import mfcc
from speechemo_cli.features.dataset import load_features
from speechemo_cli.inference.predictor import Answer, Predictor
from speechemo_cli.inference.timeline import timelines
from speechemo_cli.models import model_file, training
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")
WriteClip = Callable[..., Path]


@pytest.fixture
def model(model_with_litert: Callable[[str], Path]) -> Path:
    return model_with_litert("v1")


def answered(predictor: Predictor, path: object) -> Answer:
    """The only answer for a file."""
    (answer,) = predictor.predict([str(path)])
    assert isinstance(answer, Answer), answer
    return answer


# --- clips ---------------------------------------------------------------------------------------------


def test_answer_is_the_networks_on_the_features_of_the_training(write_clip: WriteClip) -> None:
    network = built("v1", np.random.default_rng(0).normal(0, 50, (30, 20)).astype(np.float32), 3)
    config = Config(mfcc=MfccConfig(n_mfcc=20))
    metadata = ModelMetadata("v1", LABELS, "mfcc", mfcc.VERSION, config.to_dict(), seed=0, epochs=50)
    model_file.save(network, metadata, Path("own.keras"))
    clip = write_clip("data/happy/a.wav", seconds=1.5, sr=48000)
    table = load_features("data", "mfcc", config=config)
    (expected,) = training.predict(network, table.X)

    answer = answered(Predictor.open("own.keras"), clip)

    assert list(answer.probabilities) == list(LABELS)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert answer.confidence == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert answer.duration_s == pytest.approx(1.5)


def test_predict_answers_for_one_path_at_once(model: Path, write_clip: WriteClip) -> None:
    clip = write_clip()
    predictor = Predictor.open(model)
    expected = answered(predictor, clip)

    assert predictor.predict(clip) == predictor.predict(str(clip)) == expected
    assert predictor.predict_one(clip) == [expected]
    assert predictor.predict("nowhere.wav") == ClipError("nowhere.wav", "no such file")


def test_predict_keeps_the_order_around_broken_clips_across_batches_and_threads(
    model: Path, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    voices = [noisy(rng, 0.2 + i % 7 / 10, 16000, 90 + 4 * i) for i in range(70)]
    good = [str(write_clip(f"{i}.wav", y=y)) for i, y in enumerate(voices)]
    Path("text.wav").write_text("no audio")
    paths = [*good[:30], "text.wav", *good[30:], "missing.wav"]
    predictor = Predictor.open(model, Config(jobs=5))

    answers = list(predictor.predict(paths))

    assert [answer.path for answer in answers] == paths
    assert [i for i, one in enumerate(answers) if isinstance(one, ClipError)] == [30, 71]
    assert answers == [item for path in paths for item in predictor.predict_one(path)]
    assert len({one.confidence for one in answers if isinstance(one, Answer)}) > 60


@pytest.mark.parametrize("jobs", [1, 2])
def test_predict_gives_a_clip_error_for_a_mistake_of_ours(
    jobs: int, model: Path, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reader.read_channels

    def broken(path: str, *more: Any) -> Any:
        if "bad" in path:
            raise OverflowError("of ours")
        return read(path, *more)

    monkeypatch.setattr(reader, "read_channels", broken)
    paths = [str(write_clip(f"{name}.wav")) for name in ("a", "bad", "c")]

    first, bad, last = Predictor.open(model, Config(jobs=jobs)).predict(paths)

    assert bad == ClipError(paths[1], "internal error: OverflowError: of ours")
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)


def test_predict_does_not_keep_the_samples_of_a_batch(model: Path, write_clip: WriteClip) -> None:
    """64 clips of ten minutes would be 2.5 GB."""
    seconds, n = 15.0, 12
    paths = [write_clip(f"{i}.wav", seconds=seconds, f0=100.0 + i) for i in range(n)]
    predictor = Predictor.open(model, Config(jobs=1))
    list(predictor.predict(paths[:1]))

    tracemalloc.start()
    try:
        answers = list(predictor.predict(paths))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(answers) == n
    # A clip as decoded, as resampled and what lies between; all of them would be 12 of the second.
    assert peak < 0.5 * n * seconds * predictor.sr * 4


def test_predict_loads_no_network_for_clips_that_cannot_be_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file.Checked, "load", lambda _: pytest.fail("the network was loaded"))

    found = list(Predictor.open(model, runtime="keras").predict(["a.wav"]))

    assert found == [ClipError("a.wav", "no such file")]


def test_predict_checks_clips_as_the_config_says_and_passes_warnings_on(
    model: Path, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    clip = write_clip(y=0.25 + np.clip(3 * noisy(rng, 1.5, 8000), -0.5, 0.5), sr=8000)
    clip.write_bytes(clip.read_bytes()[:20_000])
    (recording,) = reader.read_channels(clip, AudioConfig())

    answer = answered(Predictor.open(model), clip)
    refusal = Predictor.open(model, Config(audio=AudioConfig(max_duration_s=0.5))).predict(clip)

    kinds = [warning.split(":")[0] for warning in answer.warnings]
    assert kinds == ["truncated", "offset", "clipped", "band-limited"]
    assert answer.warnings == recording.warnings + quality.quality_warnings(recording.y, 8000)
    same = Predictor.open(model).predict_samples(recording.y, 8000)
    assert answer.probabilities == same.probabilities
    assert isinstance(refusal, ClipError)
    assert "longer than 0.5 s" in refusal.error


def test_predict_warns_of_a_clip_unlike_the_training(
    model: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    like, unlike = noisy(rng, 1.0, 22050), rng.standard_normal(22050).astype(np.float32) / 10
    metadata = model_file.read_metadata(model)
    features = np.concatenate([mfcc.compute(y, 22050, MfccConfig()) for y in (like, unlike)])
    network = training.with_distance(model_file.load(model)[0])
    near, far = training.predict(network, features)[1][:, 0].tolist()
    assert far > 2 * near
    limit = (near + far) / 2

    def answers(unlike_above: float | None) -> list[tuple[str, ...]]:
        monkeypatch.setattr(model_file, "read_metadata", lambda _: replace(metadata, unlike=unlike_above))
        predictor = Predictor.open(model)
        return [predictor.predict_samples(y, 22050).warnings for y in (like, unlike)]

    quiet, (warning,) = answers(limit)
    assert quiet == ()
    assert warning == (
        f"unlike the training: its features are {far:.1f} from those of the training, "
        f"whose own speakers stay below {limit:.1f}"
    )
    assert answers(None) == answers(far + 1) == [(), ()]


# --- the model and its options -------------------------------------------------------------------------


def test_predictor_shows_what_answers(model: Path) -> None:
    predictor = Predictor.open(model, runtime="keras", labels=["angry", "happy"])

    shown = predictor.to_dict()
    facts = report.describe_model(model)

    assert shown == {
        **{name: facts[name] for name in ("model", "version", "temperature", "unlike")},
        "labels": ["happy", "angry"],
        "features": {name: value for name, value in facts["features"].items() if name != "version"},
        "runtime": "keras",
    }
    assert repr(predictor) == f"<Predictor {facts['model']}: v1, 2 labels, keras>"
    assert "happy, angry" in predictor._repr_html_()


def test_timeline_is_that_of_the_module_with_its_options(model: Path, write_clip: WriteClip) -> None:
    clip = write_clip(seconds=4.0)
    predictor = Predictor.open(model, min_confidence=1.1)

    found = predictor.timeline(clip, window_s=1.0, hop_s=0.5)

    assert [found] == list(timelines(predictor, clip, window_s=1.0, hop_s=0.5))
    assert {one.label for one in found.segments} == {"uncertain"}
    with pytest.raises(AudioError, match="no such file"):
        predictor.timeline("nowhere.wav")


def test_labels_share_what_the_others_leave(model: Path, rng: np.random.Generator) -> None:
    y = noisy(rng, 1.0, 22050)
    everything = Predictor.open(model).predict_samples(y, 22050)
    predictor = Predictor.open(model, labels=["sad", "happy", "neutral", "sad"])

    answer = predictor.predict_samples(y, 22050)

    assert predictor.labels == ("neutral", "happy", "sad")  # the one order, whatever was asked first
    assert list(answer.probabilities) == ["neutral", "happy", "sad"]
    whole = sum(everything.probabilities[label] for label in predictor.labels)
    assert whole < 0.99
    assert answer.probabilities == pytest.approx(
        {label: everything.probabilities[label] / whole for label in predictor.labels}
    )
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.confidence == answer.probabilities[answer.label] == max(answer.probabilities.values())
    (row,) = predictor.probabilities([y])
    assert row.tolist() == pytest.approx(list(answer.probabilities.values()), abs=1e-6)
    assert Predictor.open(model, labels=EMOTIONS[::-1]).predict_samples(y, 22050) == everything


@pytest.mark.parametrize("labels", [None, ["happy", "sad"]])
def test_min_confidence_makes_an_answer_uncertain_that_keeps_its_numbers(
    labels: list[str] | None, model: Path, rng: np.random.Generator
) -> None:
    y = noisy(rng, 1.0, 22050)
    plain = Predictor.open(model, labels=labels).predict_samples(y, 22050)
    assert plain.label in EMOTIONS

    for least, label in ((plain.confidence, plain.label), (plain.confidence + 1e-6, "uncertain")):
        predictor = Predictor.open(model, labels=labels, min_confidence=least)
        assert predictor.predict_samples(y, 22050) == replace(plain, label=label)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"labels": ["happy", "bored", "x"]},
            r"the model does not know 'bored', 'x'\. Its labels are neutral, calm, ha",
        ),
        ({"labels": ["happy", "Sad"]}, "the model does not know 'Sad'"),
        ({"labels": ["happy"]}, "labels is 'happy', expected at least two to choose from"),
        ({"labels": ["happy", "happy"]}, "expected at least two"),
        ({"labels": []}, "expected at least two"),
        ({"labels": [""]}, "the model does not know ''"),
        ({"channel": "middle"}, "channel is 'middle', expected one of mix, left, right, each"),
        ({"runtime": "torch"}, "runtime is 'torch', expected one of auto, litert, keras"),
    ],
)
def test_open_refuses_options_that_make_no_sense(options: Any, reason: str, model: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        Predictor.open(model, **options)


# --- samples, content, parts of a recording ------------------------------------------------------------


@pytest.mark.parametrize(
    ("sr", "subtype", "dtype"),
    [
        *((22050, "FLOAT", "float32"), (48000, "FLOAT", "float64")),
        *((16000, "PCM_U8", "uint8"), (16000, "PCM_16", "int16"), (16000, "PCM_32", "int32")),
    ],
)
def test_predict_samples_gives_the_answer_of_a_file_that_holds_them(
    sr: int, subtype: str, dtype: str, model: Path, rng: np.random.Generator
) -> None:
    soundfile.write("clip.wav", noisy(rng, 0.8, sr), sr, subtype=subtype)
    is_float = dtype.startswith("float")
    y, _ = soundfile.read("clip.wav", dtype=dtype if is_float else "int32")
    if not is_float:
        y = ((y >> 32 - 8 * np.dtype(dtype).itemsize) + (128 if dtype == "uint8" else 0)).astype(dtype)
    predictor = Predictor.open(model)

    expected = replace(answered(predictor, "clip.wav"), path="", sha256="")

    assert predictor.predict_samples(y, sr) == expected
    assert predictor.predict_samples(list(y), np.int64(sr)) == expected
    assert max(expected.probabilities.values()) > 0.2  # it is sure of something


RATE = "sr is {!r}, expected a positive number of samples a second"


@pytest.mark.parametrize(
    ("y", "sr", "error", "reason"),
    [
        (np.zeros((16000, 2)), 16000, AudioError, r"samples of shape \(16000, 2\), expected one dimension"),
        (0.5, 16000, AudioError, r"samples of shape \(\), expected one dimension"),
        ([], 16000, AudioError, "no samples"),
        (np.sin(np.arange(32001)), 16000, AudioError, r"2 s is longer than 2 s"),
        (np.full(16000, 0.5), 16000, AudioError, "silent"),
        *(
            (np.sin(np.arange(16000)), sr, ConfigError, RATE.format(sr))
            for sr in (0, -16000, 16000.0, "16000", None)
        ),
    ],
)
def test_predict_samples_refuses_what_cannot_be_answered_for(
    y: Any, sr: Any, error: type[Exception], reason: str, model: Path
) -> None:
    predictor = Predictor.open(model, Config(audio=AudioConfig(max_duration_s=2.0)))

    with pytest.raises(error, match=reason):
        predictor.predict_samples(y, sr)


def test_predict_content_gives_the_answer_of_a_file_that_holds_it(model: Path, write_clip: WriteClip) -> None:
    clip = write_clip(seconds=0.5)
    predictor = Predictor.open(model)
    expected = answered(predictor, clip)

    assert predictor.predict_content(clip.read_bytes()) == [replace(expected, path="-")]
    assert predictor.predict_content(clip.read_bytes(), "call 7") == [replace(expected, path="call 7")]
    assert expected.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert predictor.predict_content(b"", "x") == [ClipError("x", "empty file")]


def test_probabilities_are_those_of_samples_unchecked(model: Path, rng: np.random.Generator) -> None:
    predictor = Predictor.open(model)
    windows = [noisy(rng, seconds, predictor.sr, 100 * seconds) for seconds in (1.0, 2.5, 1.0)]
    expected = [list(predictor.predict_samples(y, predictor.sr).probabilities.values()) for y in windows]

    received = predictor.probabilities([*windows, np.zeros(predictor.sr, np.float32)])

    assert received.shape == (4, 8)
    np.testing.assert_allclose(received[:3], expected, atol=1e-6)
    np.testing.assert_allclose(received.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(received, axis=0).max() > 0.1


# --- channels ------------------------------------------------------------------------------------------


@pytest.fixture
def stereo(rng: np.random.Generator) -> np.ndarray:
    """Two voices that do not sound alike."""
    return np.stack([noisy(rng, 1.0, 16000, 100), 0.3 * noisy(rng, 1.0, 16000, 310)], axis=1)


def test_channel_is_answered_as_if_it_were_alone(
    model: Path, stereo: np.ndarray, write_clip: WriteClip
) -> None:
    write_clip("call.wav", y=stereo, subtype="FLOAT")
    alone = Predictor.open(model)
    left, right = (alone.predict_samples(stereo[:, i], 16000) for i in range(2))
    mixed = alone.predict_samples(stereo.mean(axis=1), 16000)
    assert len({left.confidence, right.confidence, mixed.confidence}) == 3

    def predicted(channel: str) -> list[object]:
        answers = Predictor.open(model, channel=channel).predict(["call.wav"])
        return [replace(answer, path="", sha256="") for answer in answers]

    assert predicted("mix") == [mixed]
    assert predicted("left") == [replace(left, channel="left")]
    assert predicted("right") == [replace(right, channel="right")]
    assert predicted("each") == [replace(left, channel="left"), replace(right, channel="right")]
    each = Predictor.open(model, channel="each")
    assert each.predict("call.wav") == list(each.predict(["call.wav"]))
    assert [one.channel for one in each.timeline("call.wav")] == ["left", "right"]  # type: ignore[union-attr]


def test_channel_left_and_right_are_of_two(model: Path, stereo: np.ndarray, write_clip: WriteClip) -> None:
    three = write_clip(y=stereo[:, [0, 1, 0]])

    answers = Predictor.open(model, channel="each").predict_one(three)
    (refused,) = Predictor.open(model, channel="right").predict_one(three)

    assert [(type(one), one.channel) for one in answers] == [(Answer, "1"), (Answer, "2"), (Answer, "3")]
    assert refused == ClipError(str(three), "has 3 channels, no right one")
