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
    probabilities = dict(zip(LABELS, (confidence, 1 - confidence), strict=True))
    return Segment(start_s, end_s, label, confidence, probabilities, 0.9)


FOUND = Timeline(
    "calls/first call.wav",
    4000.0,
    LABELS,
    (segment(0.97, 2.883), segment(2.883, 61.0, "sad", 0.6), segment(3661.2345, 3999.9999, "uncertain", 0.5)),
    {},
)


def test_to_srt_numbers_subtitles_and_has_times_to_the_millisecond() -> None:
    assert to_srt(FOUND) == (
        "1\n00:00:00,970 --> 00:00:02,883\nhappy (88%)\n"
        "\n"
        "2\n00:00:02,883 --> 00:01:01,000\nsad (60%)\n"
        "\n"
        "3\n01:01:01,234 --> 01:06:40,000\nuncertain (50%)\n"
    )
    odd = replace(FOUND, segments=(segment(0, 1, "a\n\n2\n00:00 --> x"),))
    assert to_srt(odd).splitlines()[2:] == ["a 2 00:00 -> x (88%)"]


def test_to_audacity_has_three_columns_between_tabs() -> None:
    assert to_audacity(FOUND).splitlines() == [
        "0.970\t2.883\thappy",
        "2.883\t61.000\tsad",
        "3661.234\t4000.000\tuncertain",
    ]
    odd = replace(FOUND, segments=(segment(0, 1, "a\tb\nc"),))
    assert to_audacity(odd) == "0.000\t1.000\ta b c\n"


def test_to_rttm_has_ten_fields_with_onset_and_duration() -> None:
    assert to_rttm(FOUND).splitlines() == [
        "SPEAKER first_call 1 0.970 1.913 <NA> <NA> happy 0.875 <NA>",
        "SPEAKER first_call 1 2.883 58.117 <NA> <NA> sad 0.600 <NA>",
        "SPEAKER first_call 1 3661.234 338.766 <NA> <NA> uncertain 0.500 <NA>",
    ]
    channels = (None, "left", "right", "3")
    assert [to_rttm(replace(FOUND, channel=one)).split()[2] for one in channels] == ["1", "1", "2", "3"]


@pytest.mark.parametrize(
    "name",
    [
        *("two  words.wav", "tab\there.wav", "new\nline.wav", " .wav", "ünï côdé.wav"),
        os.fsdecode(b"caf\xe9.wav"),
    ],
)
def test_to_rttm_is_broken_by_no_name_of_a_file(name: str) -> None:
    text = to_rttm(replace(FOUND, path=f"some folder/{name}", segments=FOUND.segments[:1]))

    assert len(text.splitlines()) == 1
    assert len(text.split()) == 10
    assert text.encode()


def test_rows_go_under_their_columns_through_a_csv_file_and_back() -> None:
    file = io.StringIO()
    csv.writer(file).writerows([columns(FOUND), *rows(FOUND)])

    first, *_, last = csv.DictReader(io.StringIO(file.getvalue()))

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

    assert to_srt(nobody) == to_audacity(nobody) == to_rttm(nobody) == ""
    assert rows(nobody) == []
    assert columns(nobody)[-2:] == list(LABELS)


def test_to_srt_has_times_that_never_go_back(rng: np.random.Generator) -> None:
    edges = np.sort(rng.uniform(0, 20_000, 200)).tolist()
    many = replace(FOUND, segments=tuple(map(segment, edges[:-1], edges[1:])))

    clocks = re.findall(r"\d\d:\d\d:\d\d,\d{3}", to_srt(many))

    assert len(clocks) == 398
    assert clocks == sorted(clocks)
    assert clocks[1:-1:2] == clocks[2::2]
