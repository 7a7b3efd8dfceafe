"""Who sounds how, and when: on recordings whose parts are known."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import harmonic

from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.errors import AudioError, ConfigError
from speechemo_cli.inference.timeline import NO_SPEECH, Timeline, timeline

SR = 16000
WriteClip = Callable[..., Path]


class Ear:
    """Tells voices apart by their pitch: each label is as probable as it is long in the window."""

    labels = ("low", "middle", "high")

    def __init__(self, sr: int = SR, borders: tuple[float, float] = (130.0, 180.0)) -> None:
        self.sr = sr
        self.heard: list[int] = []
        self.batches: list[int] = []
        self._borders = borders

    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append(len(windows))
        self.heard += [len(y) for y in windows]
        return np.stack([self._one(y) for y in windows])

    def _one(self, y: np.ndarray) -> np.ndarray:
        n = self.sr // 20
        frames = y[: len(y) // n * n].reshape(-1, n)
        frames = frames[frames.std(axis=1) > 0.05 * y.std()] * np.hanning(n)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * n)) ** 2)
        shortest = self.sr // 400
        pitch = self.sr / (shortest + correlation[:, shortest : self.sr // 70].argmax(axis=1))
        votes = np.bincount(np.searchsorted(self._borders, pitch), minlength=3) + 1e-3
        return (votes / votes.sum()).astype(np.float32)


class Yes:
    """Always of one opinion."""

    sr = SR
    labels = ("a", "b")

    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(np.array([[0.7, 0.3]], np.float32), (len(windows), 1))


PITCH = {"low": 110.0, "middle": 150.0, "high": 220.0}


def said(plan: Sequence[tuple[str | None, float]], sr: int = SR) -> np.ndarray:
    """Four syllables a second, for so many seconds each; None is a pause. All with a little noise."""
    parts = [
        np.zeros(round(s * sr)) if who is None else np.tile(harmonic(0.25, sr, PITCH[who]), round(4 * s))
        for who, s in plan
    ]
    y = np.concatenate(parts)
    return (y + 1e-4 * np.random.default_rng(0).standard_normal(len(y))).astype(np.float32)


def spans(found: Timeline) -> list[tuple[float, float, str]]:
    return [(one.start_s, one.end_s, one.label) for one in found.segments]


def check(found: Timeline) -> None:
    """Check what holds for every timeline."""
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


# --- labels and borders


@pytest.mark.parametrize("sr", [8000, 16000, 44100])
@pytest.mark.parametrize("ear_sr", [16000, 22050])
def test_parts_between_pauses_are_found_with_their_labels(
    sr: int, ear_sr: int, write_clip: WriteClip
) -> None:
    plan = [(None, 0.8), ("low", 2.0), (None, 0.6), ("high", 1.25), (None, 1.5), ("middle", 4.0), (None, 0.7)]
    path = write_clip(y=said(plan, sr), sr=sr)

    found = timeline(Ear(ear_sr), path)

    check(found)
    expected = [(0.8, 2.8, "low"), (3.4, 4.65, "high"), (6.15, 10.15, "middle")]
    for (start, end, label), (start_s, end_s, who) in zip(spans(found), expected, strict=True):
        assert label == who
        assert start == pytest.approx(start_s, abs=0.1)
        assert end == pytest.approx(end_s, abs=0.1)
    assert found.duration_s == pytest.approx(10.85)
    assert found.path == str(path)
    assert found.labels == Ear.labels
    assert found.warnings == ()
    assert found.summary["middle"]["share"] == pytest.approx(4.0 / 7.25, abs=0.05)


def test_parts_that_follow_at_once_are_told_apart(write_clip: WriteClip) -> None:
    plan = [("low", 4.0), ("high", 3.0), ("middle", 5.0), ("low", 2.5)]

    found = timeline(Ear(), write_clip(y=said(plan)))

    check(found)
    assert [label for *_, label in spans(found)] == ["low", "high", "middle", "low"]
    for one, join in zip(found.segments[1:], (4.0, 7.0, 12.0), strict=True):
        assert one.start_s == pytest.approx(join, abs=0.3)


@pytest.mark.parametrize("pause_s", [0.0, 0.4, 1.0])
def test_spliced_sentences_of_two_voices_begin_and_end_at_the_joins(
    pause_s: float, write_clip: WriteClip
) -> None:
    rng = np.random.default_rng(7)
    man, woman = voice_of(1, 0), voice_of(2, 0)
    parts, joins, order = [], [0.0], []
    for who, voice, sentences in (("low", man, 2), ("high", woman, 1), ("low", man, 1), ("high", woman, 3)):
        for i in range(sentences):
            y = synthesise(voice, "neutral", 1, 1 + i % 2, rng)[round(0.33 * SR) : round(-0.33 * SR)]
            parts.append(y)
            if i == sentences - 1:
                parts.append(1e-4 * rng.standard_normal(round(pause_s * SR)).astype(np.float32))
        order.append(who)
        joins.append(sum(map(len, parts)) / SR)
    path = write_clip(y=np.concatenate(parts))

    found = timeline(Ear(borders=(155.0, 155.001)), path)

    check(found)
    assert [label for *_, label in spans(found)] == order
    for (start, end, _), begin, finish in zip(spans(found), joins, joins[1:], strict=False):
        assert start == pytest.approx(begin, abs=0.5)
        assert end == pytest.approx(finish - pause_s, abs=0.5)


def test_one_label_goes_on_across_a_short_pause_and_ends_at_a_long_one(write_clip: WriteClip) -> None:
    plan = [("low", 1.5), (None, 0.6), ("low", 1.5), (None, 2.5), ("low", 1.5)]

    found = timeline(Ear(), write_clip(y=said(plan)))

    check(found)
    assert len(found.segments) == 2
    assert 0.6 < found.segments[0].speech_share < 0.95
    assert found.segments[1].speech_share == 1


def test_what_falls_short_of_the_least_confidence_is_uncertain(write_clip: WriteClip) -> None:
    # One opinion is not the other's neighbour: with doubt in both, there is one stretch of doubt.
    path = write_clip(y=said([("low", 2.0), (None, 0.5), ("high", 1.0)]))

    class Doubtful(Ear):
        def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
            return 0.5 * super().probabilities(windows) + 0.5 / 3

    sure = timeline(Ear(), path, min_confidence=0.9)
    doubtful = timeline(Doubtful(), path, min_confidence=0.9)

    check(doubtful)
    assert [label for *_, label in spans(sure)] == ["low", "high"]
    assert "uncertain" not in sure.summary
    ((start, end, label),) = spans(doubtful)
    assert label == "uncertain"
    assert (start, end) == (sure.segments[0].start_s, sure.segments[1].end_s)
    assert doubtful.summary["uncertain"]["share"] == 1
    assert doubtful.segments[0].probabilities["low"] > doubtful.segments[0].probabilities["high"]


# --- what the network is given


def test_no_window_is_longer_than_asked_for_and_pauses_are_not_listened_to(write_clip: WriteClip) -> None:
    path = write_clip(y=said([(None, 5.0), ("low", 9.0), (None, 20.0), ("high", 1.0), (None, 5.0)]))
    ear = Ear()

    timeline(ear, path, window_s=2.0, hop_s=0.5)

    assert max(ear.heard) <= 2.01 * SR
    assert max(ear.batches) <= 16
    # 9 s in windows of three lengths, and one sentence as a whole.
    assert 9 / 0.5 * (1 + 2 + 3) * 0.8 < len(ear.heard) < 9 / 0.5 * (1 + 2 + 3) * 1.2


def test_a_hop_that_is_finer_listens_more(write_clip: WriteClip) -> None:
    path = write_clip(y=said([("low", 8.0)]))
    coarse, fine = Ear(), Ear()

    timeline(coarse, path, hop_s=1.0)
    timeline(fine, path, hop_s=0.25)

    assert len(fine.heard) > 3 * len(coarse.heard)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window_s": 0.1}, r"^window_s is 0\.1, expected 0\.5 to 60 seconds"),
        ({"hop_s": 0}, r"^hop_s is 0, expected 0\.1 to 3 seconds"),
        ({"hop_s": 2.5, "window_s": 2}, r"^hop_s is 2\.5, expected 0\.1 to 2 seconds, which is the window"),
        ({"window_s": float("nan")}, "^window_s is nan"),
    ],
)
def test_windows_that_make_no_sense_are_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        timeline(Ear(), "not-even-looked-at.wav", **options)  # type: ignore[arg-type]


# --- recordings that are odd


class Deaf(Ear):
    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        pytest.fail("there is nothing to listen to")


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.1])
def test_silence_and_noise_have_no_segments_and_a_warning(
    level: float, write_clip: WriteClip, rng: np.random.Generator
) -> None:
    found = timeline(Deaf(), write_clip(y=level * rng.standard_normal(6 * SR)))

    check(found)
    assert found.segments == ()
    assert found.warnings == (NO_SPEECH,)
    assert {part["share"] for part in found.summary.values()} == {0.0}


def test_a_recording_of_half_a_second_is_one_segment(write_clip: WriteClip) -> None:
    found = timeline(Ear(), write_clip(y=harmonic(0.5, SR, PITCH["high"])))

    check(found)
    ((start, end, label),) = spans(found)
    assert label == "high"
    assert end - start > 0.35


def test_what_is_too_short_for_a_clip_is_too_short_for_a_timeline(write_clip: WriteClip) -> None:
    path = write_clip(y=harmonic(0.15, SR))

    with pytest.raises(AudioError, match=r"^0\.150 s is shorter than 0\.2 s$"):
        timeline(Ear(), path)
    assert timeline(Ear(), path, config=AudioConfig(min_duration_s=0.1)).duration_s == 0.15


def test_the_longest_duration_of_a_clip_does_not_apply(write_clip: WriteClip) -> None:
    found = timeline(Ear(), write_clip(seconds=3.0), config=AudioConfig(max_duration_s=1.0))

    assert len(found.segments) == 1


def test_each_channel_has_a_timeline_of_its_own(write_clip: WriteClip) -> None:
    left = said([("low", 2.0), (None, 3.0)])
    right = said([(None, 3.0), ("high", 2.0)])
    path = write_clip(y=np.stack([left, right], axis=1))

    both, one, other = (timeline(Ear(), path, channel=name) for name in ("mix", "left", "right"))

    assert [label for *_, label in spans(both)] == ["low", "high"]
    assert [label for *_, label in spans(one)] == ["low"]
    assert [label for *_, label in spans(other)] == ["high"]
    assert (both.channel, one.channel, other.channel) == (None, "left", "right")
    with pytest.raises(AudioError, match="has 2 channels, no 3 one"):
        timeline(Ear(), path, channel="3")


def test_a_cut_recording_is_answered_with_the_warning(write_clip: WriteClip) -> None:
    path = write_clip(y=said([("low", 4.0), (None, 4.0)]))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    found = timeline(Ear(), path)

    assert [label for *_, label in spans(found)] == ["low"]
    assert found.warnings[0].startswith("truncated: the header promises 8.00 s")


def test_a_recording_that_shrinks_between_the_two_readings_is_an_error(
    write_clip: WriteClip, tmp_path: Path
) -> None:
    path = write_clip(y=said([("low", 3.0), (None, 1.0), ("high", 3.0)]))
    shorter = write_clip("shorter.wav", y=said([("low", 3.0)]))

    def swap(done: int, total: int | None, what: str) -> None:
        if what == "finding speech" and done == total and shorter.exists():
            shorter.replace(path)

    with pytest.raises(AudioError, match="changed while it was being read"):
        timeline(Ear(), path, on_progress=swap)


def test_progress_goes_to_the_end_twice(write_clip: WriteClip) -> None:
    told: list[tuple[int, int | None, str]] = []

    timeline(Ear(), write_clip(y=said([("low", 5.0)])), on_progress=lambda *step: told.append(step))

    for what in ("finding speech", "predicting"):
        done = [seconds for seconds, _, stage in told if stage == what]
        assert done == sorted(done)
        assert done[-1] == 5
    assert {total for _, total, _ in told} == {5}


def test_the_same_recording_has_the_same_timeline(write_clip: WriteClip) -> None:
    path = write_clip(y=said([("low", 4.0), ("high", 3.0)]))

    one, two = timeline(Ear(), path), timeline(Ear(), path)

    assert one == two
    np.testing.assert_array_equal(one.envelope, two.envelope)


def test_ten_minutes_take_no_more_memory_than_a_few_windows(tmp_path: Path) -> None:
    minute = (0.3 * np.concatenate([harmonic(2.0, SR)] * 30) * 32767).astype(np.int16)
    path = tmp_path / "call.wav"
    with soundfile.SoundFile(path, "w", SR, 1, "PCM_16") as file:
        for _ in range(10):
            file.write(minute)
    timeline(Yes(), write_short(tmp_path))  # so that no import is counted

    tracemalloc.start()
    found = timeline(Yes(), path, hop_s=3.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    check(found)
    assert found.duration_s == 600
    # All samples as float32 are 38 MB; a batch of 16 windows is 3 MB.
    assert peak < 8e6


def write_short(folder: Path) -> Path:
    soundfile.write(folder / "short.wav", harmonic(4.0, SR), SR)
    return folder / "short.wav"
