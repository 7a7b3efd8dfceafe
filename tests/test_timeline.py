"""Which emotion is in the voice, and when: on recordings whose parts are known."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.config import AudioConfig, Config
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.errors import AudioError, ConfigError
from speechemo_cli.inference.predictor import Predictor
from speechemo_cli.inference.timeline import NO_SPEECH, Timeline, timelines

SR = 16000
WriteClip = Callable[..., Path]


class ByPitch:
    """Stands for a model: each label is as probable as its pitch is long in the window."""

    labels = ("low", "middle", "high")

    choose = Predictor.choose

    def __init__(
        self,
        sr: int = SR,
        *,
        borders: tuple[float, float] = (130.0, 180.0),
        sure: float = 1.0,
        channel: str = "mix",
        min_confidence: float = 0.0,
        **audio: Any,
    ) -> None:
        self.sr, self.channel, self.min_confidence = sr, channel, min_confidence
        self.config = Config(audio=AudioConfig(**audio))
        self.lengths: list[int] = []
        self.batches: list[int] = []
        self._borders, self._sure = borders, sure

    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append(len(windows))
        self.lengths += [len(y) for y in windows]
        return np.stack([self._sure * self._one(y) + (1 - self._sure) / 3 for y in windows])

    def _one(self, y: np.ndarray) -> np.ndarray:
        n = self.sr // 20
        frames = y[: len(y) // n * n].reshape(-1, n)
        frames = frames[frames.std(axis=1) > 0.05 * y.std()] * np.hanning(n)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * n)) ** 2)
        shortest = self.sr // 400
        pitch = self.sr / (shortest + correlation[:, shortest : self.sr // 70].argmax(axis=1))
        votes = np.bincount(np.searchsorted(self._borders, pitch), minlength=3) + 1e-3
        return (votes / votes.sum()).astype(np.float32)


PITCH = {"low": 110.0, "middle": 150.0, "high": 220.0}


def tones(plan: Sequence[tuple[str | None, float]], sr: int = SR) -> np.ndarray:
    """Four syllables a second, for so many seconds each; None is a pause. All with a little noise."""
    parts = [
        np.zeros(round(s * sr)) if who is None else np.tile(harmonic(0.25, sr, PITCH[who]), round(4 * s))
        for who, s in plan
    ]
    y = np.concatenate(parts)
    return (y + 1e-4 * np.random.default_rng(0).standard_normal(len(y))).astype(np.float32)


def timeline(path: Path | str, model: Any = None, **options: Any) -> Timeline:
    (found,) = timelines(model or ByPitch(), path, **options)
    return found


def follow(path: Path, model: Any = None) -> tuple[Timeline, list[str]]:
    """A timeline, once it is checked for what holds for every one, and its labels."""
    found = timeline(path, model)
    last = 0.0
    for one in found.segments:
        assert last <= one.start_s < one.end_s <= found.duration_s
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.confidence == max(one.probabilities.values())
        assert 0 < one.speech_share <= 1
        last = one.end_s
    shares = sum(part["share"] for part in found.summary.values())
    assert shares == pytest.approx(1 if found.segments else 0)
    seconds = sum(one.speech_share * (one.end_s - one.start_s) for one in found.segments)
    assert sum(part["speech_s"] for part in found.summary.values()) == pytest.approx(seconds)
    assert len(found.envelope) <= 2000
    return found, [one.label for one in found.segments]


# --- labels and borders


@pytest.mark.parametrize(("sr", "model_sr"), [(8000, 16000), (16000, 16000), (44100, 22050)])
def test_timeline_finds_parts_between_pauses_with_their_labels(
    sr: int, model_sr: int, write_clip: WriteClip
) -> None:
    plan = [(None, 0.8), ("low", 2.0), (None, 0.6), ("high", 1.25), (None, 1.5), ("middle", 4.0), (None, 0.7)]
    path = write_clip(y=tones(plan, sr), sr=sr)

    found, labels = follow(path, ByPitch(model_sr))

    assert labels == ["low", "high", "middle"]
    ends = [(one.start_s, one.end_s) for one in found.segments]
    np.testing.assert_allclose(ends, [(0.8, 2.8), (3.4, 4.65), (6.15, 10.15)], rtol=0, atol=0.1)
    assert found.duration_s == pytest.approx(10.85)
    assert found.path == str(path)
    assert found.labels == ByPitch.labels
    assert found.warnings == ()
    assert found.summary["middle"]["share"] == pytest.approx(4.0 / 7.25, abs=0.05)


def test_timeline_separates_parts_that_follow_at_once_and_is_the_same_again(write_clip: WriteClip) -> None:
    path = write_clip(y=tones([("low", 4.0), ("high", 3.0), ("middle", 5.0), ("low", 2.5)]))

    found, labels = follow(path)
    again, _ = follow(path)

    assert labels == ["low", "high", "middle", "low"]
    assert [one.start_s for one in found.segments[1:]] == pytest.approx([4.0, 7.0, 12.0], abs=0.3)
    assert again == found
    np.testing.assert_array_equal(again.envelope, found.envelope)


@pytest.mark.parametrize("pause_s", [0.0, 0.4, 1.0])
def test_timeline_begins_and_ends_spliced_sentences_of_two_speakers_at_the_joins(
    pause_s: float, write_clip: WriteClip
) -> None:
    rng = np.random.default_rng(7)
    man, woman = voice_of(1, 0), voice_of(2, 0)
    parts, joins, order = [], [0.0], []
    for who, voice, sentences in (("low", man, 2), ("high", woman, 1), ("low", man, 1), ("high", woman, 3)):
        parts += [
            synthesise(voice, "neutral", 1, 1 + i % 2, rng)[round(0.33 * SR) : round(-0.33 * SR)]
            for i in range(sentences)
        ]
        parts.append(1e-4 * rng.standard_normal(round(pause_s * SR)).astype(np.float32))
        order.append(who)
        joins.append(sum(map(len, parts)) / SR)

    found, labels = follow(write_clip(y=np.concatenate(parts)), ByPitch(borders=(155.0, 155.001)))

    assert labels == order
    assert [one.start_s for one in found.segments] == pytest.approx(joins[:-1], abs=0.5)
    assert [one.end_s + pause_s for one in found.segments] == pytest.approx(joins[1:], abs=0.5)


def test_timeline_goes_on_across_a_short_pause_and_ends_a_segment_at_a_long_one(
    write_clip: WriteClip,
) -> None:
    plan = [("low", 1.5), (None, 0.6), ("low", 1.5), (None, 2.5), ("low", 1.5)]

    found, labels = follow(write_clip(y=tones(plan)))

    assert labels == ["low", "low"]
    assert 0.6 < found.segments[0].speech_share < 0.95
    assert found.segments[1].speech_share == 1


def test_timeline_is_uncertain_below_the_least_confidence(write_clip: WriteClip) -> None:
    path = write_clip(y=tones([("low", 2.0), (None, 0.5), ("high", 1.0)]))

    sure, labels = follow(path, ByPitch(min_confidence=0.9))
    unsure, (label,) = follow(path, ByPitch(sure=0.5, min_confidence=0.9))

    assert labels == ["low", "high"]
    assert "uncertain" not in sure.summary
    (one,) = unsure.segments
    assert label == "uncertain"
    assert (one.start_s, one.end_s) == (sure.segments[0].start_s, sure.segments[1].end_s)
    assert unsure.summary["uncertain"]["share"] == 1
    assert one.probabilities["low"] > one.probabilities["high"]


# --- what the network is given


def test_timeline_answers_for_speech_alone_in_windows_and_hops_as_asked(write_clip: WriteClip) -> None:
    path = write_clip(y=tones([(None, 5.0), ("low", 9.0), (None, 20.0), ("high", 1.0), (None, 5.0)]))
    model, coarse = ByPitch(), ByPitch()

    timeline(path, model, window_s=2.0, hop_s=0.5)
    timeline(path, coarse, window_s=2.0, hop_s=2.0)

    assert max(model.lengths) <= 2.01 * SR
    assert max(model.batches) <= 16
    # 9 s in windows of three lengths, and one sentence as a whole.
    assert 9 / 0.5 * (1 + 2 + 3) * 0.8 < len(model.lengths) < 9 / 0.5 * (1 + 2 + 3) * 1.2
    assert len(model.lengths) > 3 * len(coarse.lengths)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window_s": 0.1}, r"^window_s is 0\.1, expected 0\.5 to 60 seconds"),
        ({"hop_s": 0}, r"^hop_s is 0, expected 0\.1 to 3 seconds"),
        ({"hop_s": 2.5, "window_s": 2}, r"^hop_s is 2\.5, expected 0\.1 to 2 seconds, which is the window"),
        ({"window_s": float("nan")}, "^window_s is nan"),
    ],
)
def test_timeline_refuses_windows_that_make_no_sense(options: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        timeline("not-even-looked-at.wav", **options)


# --- recordings that are odd


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.1])
def test_timeline_has_no_segments_and_a_warning_for_silence_and_noise(
    level: float, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    model = ByPitch()

    found, labels = follow(write_clip(y=level * rng.standard_normal(6 * SR)), model)

    assert labels == model.batches == []
    assert found.warnings == (NO_SPEECH,)
    assert {part["share"] for part in found.summary.values()} == {0.0}


def test_timeline_of_half_a_second_is_one_segment(write_clip: WriteClip) -> None:
    found, labels = follow(write_clip(y=harmonic(0.5, SR, PITCH["high"])))

    assert labels == ["high"]
    assert found.segments[0].end_s - found.segments[0].start_s > 0.35


def test_timeline_takes_the_shortest_duration_of_the_config_and_no_longest(write_clip: WriteClip) -> None:
    path = write_clip(y=harmonic(0.15, SR))

    with pytest.raises(AudioError, match=r"^0\.150 s is shorter than 0\.2 s$"):
        follow(path)
    assert follow(path, ByPitch(min_duration_s=0.1))[0].duration_s == 0.15
    _, labels = follow(write_clip(seconds=3.0), ByPitch(max_duration_s=1.0))
    assert len(labels) == 1


def test_timeline_follows_each_channel(write_clip: WriteClip) -> None:
    left = tones([("low", 2.0), (None, 3.0)])
    right = tones([(None, 3.0), ("high", 2.0)])
    path = write_clip(y=np.stack([left, right], axis=1))

    found = [follow(path, ByPitch(channel=name)) for name in ("mix", "left", "right")]

    assert [labels for _, labels in found] == [["low", "high"], ["low"], ["high"]]
    assert [one.channel for one, _ in found] == [None, "left", "right"]
    with pytest.raises(AudioError, match="has 2 channels, no 3 one"):
        follow(path, ByPitch(channel="3"))


def test_timeline_of_a_cut_recording_has_the_warning(write_clip: WriteClip) -> None:
    path = write_clip(y=tones([("low", 4.0), (None, 4.0)]))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    found, labels = follow(path)

    assert labels == ["low"]
    assert found.warnings[0].startswith("truncated: the header promises 8.00 s")


def test_timeline_refuses_a_recording_that_shrinks_between_the_two_readings(write_clip: WriteClip) -> None:
    path = write_clip(y=tones([("low", 3.0), (None, 1.0), ("high", 3.0)]))
    shorter = write_clip("shorter.wav", y=tones([("low", 3.0)]))

    def swap(done: int, total: int | None, what: str) -> None:
        if what == "finding speech" and done == total and shorter.exists():
            shorter.replace(path)

    with pytest.raises(AudioError, match="changed while it was being read"):
        timeline(path, on_progress=swap)


def test_timeline_tells_progress_to_the_end_twice(write_clip: WriteClip) -> None:
    steps: list[tuple[int, int | None, str]] = []

    timeline(write_clip(y=tones([("low", 5.0)])), on_progress=lambda *step: steps.append(step))

    for what in ("finding speech", "predicting"):
        done = [seconds for seconds, _, stage in steps if stage == what]
        assert done == sorted(done)
        assert done[-1] == 5
    assert {total for _, total, _ in steps} == {5}


def test_timeline_of_minutes_takes_no_more_memory_than_a_few_windows(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    minute = (0.3 * np.concatenate([harmonic(2.0, SR)] * 30) * 32767).astype(np.int16)
    path = tmp_path / "call.wav"
    with soundfile.SoundFile(path, "w", SR, 1, "PCM_16") as file:
        for _ in range(5):
            file.write(minute)

    class Constant(ByPitch):
        def _one(self, y: np.ndarray) -> np.ndarray:
            return np.array([0.7, 0.2, 0.1], np.float32)

    timeline(write_clip(seconds=4.0), Constant())  # so that no import is counted

    tracemalloc.start()
    found = timeline(path, Constant(), hop_s=3.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.duration_s == 300
    # All samples as float32 are 19 MB; a batch of 16 windows is 3 MB.
    assert peak < 8e6
