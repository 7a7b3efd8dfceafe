"""What other programs read: every line has the form they expect, and exact times."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import replace

import numpy as np
import pytest

from speechemo_cli.inference.timeline import Segment, Timeline
from speechemo_cli.inference.timeline_formats import columns, rows, to_audacity, to_rttm, to_srt

LABELS = ("happy", "sad")


def segment(start_s: float, end_s: float, label: str = "happy", confidence: float = 0.875) -> Segment:
    other = 1 - confidence
    probabilities = {"happy": other, "sad": confidence}
    if label == "happy":
        probabilities = {"happy": confidence, "sad": other}
    return Segment(start_s, end_s, label, confidence, probabilities, 0.9)


FOUND = Timeline(
    "calls/first call.wav",
    4000.0,
    LABELS,
    (segment(0.97, 2.883), segment(2.883, 61.0, "sad", 0.6), segment(3661.2345, 3999.9999, "uncertain", 0.5)),
    {},
)
NOBODY = replace(FOUND, segments=())


def test_subtitles_are_numbered_and_have_times_to_the_millisecond() -> None:
    assert to_srt(FOUND) == (
        "1\n00:00:00,970 --> 00:00:02,883\nhappy (88%)\n"
        "\n"
        "2\n00:00:02,883 --> 00:01:01,000\nsad (60%)\n"
        "\n"
        "3\n01:01:01,234 --> 01:06:40,000\nuncertain (50%)\n"
    )


def test_a_label_cannot_break_a_subtitle() -> None:
    odd = replace(FOUND, segments=(segment(0, 1, "a\n\n2\n00:00 --> x"),))

    assert to_srt(odd).splitlines()[2:] == ["a 2 00:00 -> x (88%)"]


def test_a_label_track_has_three_columns_between_tabs() -> None:
    assert to_audacity(FOUND).splitlines() == [
        "0.970\t2.883\thappy",
        "2.883\t61.000\tsad",
        "3661.234\t4000.000\tuncertain",
    ]
    odd = replace(FOUND, segments=(segment(0, 1, "a\tb\nc"),))
    assert to_audacity(odd) == "0.000\t1.000\ta b c\n"


def test_rttm_has_ten_fields_with_onset_and_duration() -> None:
    lines = to_rttm(FOUND).splitlines()

    assert lines[0] == "SPEAKER first_call 1 0.970 1.913 <NA> <NA> happy 0.875 <NA>"
    assert lines[1] == "SPEAKER first_call 1 2.883 58.117 <NA> <NA> sad 0.600 <NA>"
    assert all(len(line.split(" ")) == 10 for line in lines)
    # Onset and duration add up to the end, to the millisecond.
    onset, duration = (float(lines[2].split()[i]) for i in (3, 4))
    assert onset + duration == pytest.approx(4000.0, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "two  words.wav",
        "tab\there.wav",
        "new\nline.wav",
        " .wav",
        "ünï côdé.wav",
        os.fsdecode(b"caf\xe9.wav"),
    ],
)
def test_no_name_of_a_file_breaks_rttm(name: str) -> None:
    text = to_rttm(replace(FOUND, path=f"some folder/{name}", segments=FOUND.segments[:1]))

    assert len(text.splitlines()) == 1
    assert len(text.split()) == 10
    assert text.encode()


def test_to_rttm_says_which_channel() -> None:
    def channel(name: str | None) -> str:
        return to_rttm(replace(FOUND, channel=name)).split()[2]

    assert [channel(name) for name in (None, "left", "right", "3")] == ["1", "1", "2", "3"]


def test_rows_go_under_their_columns_through_a_csv_file_and_back() -> None:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns(FOUND))
    writer.writerows(rows(FOUND))
    file.seek(0)

    first, *_, last = csv.DictReader(file)

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


def test_nobody_speaks_in_an_empty_text() -> None:
    assert to_srt(NOBODY) == to_audacity(NOBODY) == to_rttm(NOBODY) == ""
    assert rows(NOBODY) == []
    assert columns(NOBODY)[-2:] == list(LABELS)


def test_times_never_go_back(rng: np.random.Generator) -> None:
    edges = np.sort(rng.uniform(0, 20_000, 200)).tolist()
    many = replace(FOUND, segments=tuple(map(segment, edges[:-1], edges[1:])))

    clocks = re.findall(r"\d\d:\d\d:\d\d,\d{3}", to_srt(many))

    assert len(clocks) == 398
    assert clocks == sorted(clocks)
    assert clocks[1:-1:2] == clocks[2::2]
