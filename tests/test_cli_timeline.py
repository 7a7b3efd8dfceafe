"""`speechemo timeline`, from recordings to every format."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.cli import app, timeline
from speechemo_cli.config import Config
from speechemo_cli.inference import Style
from speechemo_cli.inference.predictor import Predictor
from speechemo_cli.inference.timeline import Segment, Timeline

SR = 16000


class ByPitch:
    """Answers `sad` for a low voice and `happy` for a high one."""

    sr = SR
    labels = ("happy", "sad")
    choose = Predictor.choose

    def __init__(self, asked: Any, config: Config) -> None:
        self.channel, self.min_confidence, self.config = asked.channel, asked.min_confidence, config

    def probabilities(self, windows: list[np.ndarray]) -> np.ndarray:
        rows = []
        for y in windows:
            power = np.abs(np.fft.rfft(y)) ** 2
            hz = np.fft.rfftfreq(len(y), 1 / SR)
            low, high = (power[np.abs(hz - f0) < 20].sum() for f0 in (120, 260))
            rows.append((0.9, 0.1) if high > low else (0.1, 0.9))
        return np.array(rows, np.float32)


@pytest.fixture
def call(write_clip: Callable[..., Path]) -> Path:
    """Low, high, low, two seconds each with a second between; the right channel has the first voice only."""
    rng = np.random.default_rng(0)
    pause = 1e-4 * rng.standard_normal(SR)
    voices = [harmonic(2.0, SR, f0) for f0 in (120.0, 260.0, 120.0)]
    left = np.concatenate([part for voice in voices for part in (pause, voice)] + [pause])
    right = left.copy()
    right[4 * SR :] = 1e-4 * rng.standard_normal(len(right) - 4 * SR)
    return write_clip("call.wav", sr=SR, y=np.stack([left, right], axis=1))


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `speechemo timeline` on recordings and return what it writes."""
    monkeypatch.setattr(timeline, "open_predictor", ByPitch)
    monkeypatch.setattr(timeline, "files_of", lambda _: [])
    style = Style("models/m.keras", ByPitch.labels)
    monkeypatch.setattr(timeline.Style, "of", lambda *_, **__: style)

    def call(*arguments: object) -> str:
        app.run(["timeline", *map(str, arguments)])
        return capsys.readouterr().out

    return call


def test_timeline_record_holds_segments_and_shares(call: Path, follow: Callable[..., str]) -> None:
    record = json.loads(follow(call))

    assert [segment["label"] for segment in record["segments"]] == ["sad", "happy", "sad"]
    for segment, start in zip(record["segments"], (1.0, 4.0, 7.0), strict=True):
        assert segment["start_s"] == pytest.approx(start, abs=0.5)
        assert segment["end_s"] == pytest.approx(start + 2.0, abs=0.5)
    assert record["path"] == str(call)
    assert record["duration_s"] == pytest.approx(10.0)
    assert sum(part["share"] for part in record["summary"].values()) == pytest.approx(1.0, abs=1e-5)
    assert record["summary"]["sad"]["share"] == pytest.approx(2 / 3, abs=0.05)


def test_timeline_writes_a_record_a_channel(call: Path, follow: Callable[..., str]) -> None:
    records = [json.loads(line) for line in follow(call, "--channel", "each").splitlines()]

    assert [record["channel"] for record in records] == ["left", "right"]
    assert [len(record["segments"]) for record in records] == [3, 1]


def test_timeline_json_holds_a_bad_recording_as_an_error(call: Path, follow: Callable[..., str]) -> None:
    document = json.loads(follow(call, "missing.wav", "-f", "json"))

    assert (document["schema"], document["command"]) == (1, "timeline")
    good, bad = document["recordings"]
    assert good["status"] == "ok"
    assert bad == {"schema": 1, "path": "missing.wav", "status": "error", "error": "no such file"}


def test_timeline_csv_has_a_line_a_segment(call: Path, follow: Callable[..., str]) -> None:
    rows = list(csv.DictReader(io.StringIO(follow(call, call, "-f", "csv"))))

    assert [row["label"] for row in rows] == 2 * ["sad", "happy", "sad"]
    assert {row["path"] for row in rows} == {str(call)}


def test_timeline_table_shows_times_and_shares(call: Path, follow: Callable[..., str]) -> None:
    text = follow(call, "-f", "table")

    assert "call.wav" in text
    assert text.index("sad") < text.index("happy")
    assert "67%" in text


def test_timeline_draws(call: Path, follow: Callable[..., str]) -> None:
    follow(call, "--plot", "timeline.png")

    assert Path("timeline.png").read_bytes().startswith(b"\x89PNG")


# --- the formats that other programs read: every line has the form they expect, and exact times

LABELS = ("happy", "sad")


def segment(start_s: float, end_s: float, label: str = "happy", confidence: float = 0.875) -> Segment:
    probabilities = dict(zip(LABELS, (confidence, 1 - confidence), strict=True))
    return Segment(start_s, end_s, label, confidence, probabilities, 0.9)


FOUND = Timeline(
    "calls/first call.wav",
    4000.0,
    LABELS,
    (segment(0.97, 2.883), segment(2.883, 61.0, "sad", 0.6), segment(3661.2345, 3999.9999, "uncertain", 0.5)),
    {},
)


def written(format_: str, found: Timeline) -> str:
    writer = timeline.WRITERS[format_](Style("m", LABELS))
    return writer.begin() + writer.write(found) + writer.end()


def test_srt_numbers_subtitles_and_has_times_to_the_millisecond() -> None:
    assert written("srt", FOUND) == (
        "1\n00:00:00,970 --> 00:00:02,883\nhappy (88%)\n"
        "\n"
        "2\n00:00:02,883 --> 00:01:01,000\nsad (60%)\n"
        "\n"
        "3\n01:01:01,234 --> 01:06:40,000\nuncertain (50%)\n"
    )
    odd = replace(FOUND, segments=(segment(0, 1, "a\n\n2\n00:00 --> x"),))
    assert written("srt", odd).splitlines()[2:] == ["a 2 00:00 -> x (88%)"]


def test_audacity_has_three_columns_between_tabs() -> None:
    assert written("audacity", FOUND).splitlines() == [
        "0.970\t2.883\thappy",
        "2.883\t61.000\tsad",
        "3661.234\t4000.000\tuncertain",
    ]
    odd = replace(FOUND, segments=(segment(0, 1, "a\tb\nc"),))
    assert written("audacity", odd) == "0.000\t1.000\ta b c\n"


def test_rttm_has_ten_fields_with_onset_and_duration() -> None:
    assert written("rttm", FOUND).splitlines() == [
        "SPEAKER first_call 1 0.970 1.913 <NA> <NA> happy 0.875 <NA>",
        "SPEAKER first_call 1 2.883 58.117 <NA> <NA> sad 0.600 <NA>",
        "SPEAKER first_call 1 3661.234 338.766 <NA> <NA> uncertain 0.500 <NA>",
    ]
    for channel, number in ((None, "1"), ("left", "1"), ("right", "2"), ("3", "3")):
        assert written("rttm", replace(FOUND, channel=channel)).split()[2] == number


@pytest.mark.parametrize(
    "name",
    [
        *("two  words.wav", "tab\there.wav", "new\nline.wav", " .wav", "ünï côdé.wav"),
        os.fsdecode(b"caf\xe9.wav"),
    ],
)
def test_rttm_is_broken_by_no_name_of_a_file(name: str) -> None:
    text = written("rttm", replace(FOUND, path=f"some folder/{name}", segments=FOUND.segments[:1]))

    assert len(text.splitlines()) == 1
    assert len(text.split()) == 10
    assert text.encode()


def test_csv_goes_through_a_reader_and_back() -> None:
    first, *_, last = csv.DictReader(io.StringIO(written("csv", FOUND)))

    assert first == {
        "path": "calls/first call.wav",
        "channel": "",
        "start_s": "0.97",
        "end_s": "2.883",
        "label": "happy",
        "confidence": "0.875",
        "speech_share": "0.9",
        "happy": "0.875",
        "sad": "0.125",
    }
    assert (last["end_s"], last["label"]) == ("4000.0", "uncertain")


def test_formats_are_empty_where_nobody_speaks() -> None:
    nobody = replace(FOUND, segments=())

    assert written("srt", nobody) == written("audacity", nobody) == written("rttm", nobody) == ""
    assert written("csv", nobody).rstrip().split(",")[-2:] == list(LABELS)


def test_srt_has_times_that_never_go_back(rng: np.random.Generator) -> None:
    edges = np.sort(rng.uniform(0, 20_000, 200)).tolist()
    many = replace(FOUND, segments=tuple(map(segment, edges[:-1], edges[1:])))

    clocks = re.findall(r"\d\d:\d\d:\d\d,\d{3}", written("srt", many))

    assert len(clocks) == 398
    assert clocks == sorted(clocks)
    assert clocks[1:-1:2] == clocks[2::2]
