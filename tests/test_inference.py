"""Answers and timelines as dicts, and as a notebook shows them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from speechemo_cli.errors import ClipError
from speechemo_cli.inference import Style
from speechemo_cli.inference.predictor import Answer
from speechemo_cli.inference.timeline import Segment, Timeline

ANSWER = Answer("a.wav", "sad", 0.75, {"happy": 0.25, "sad": 0.75}, 1.5, ("clipped",), None, "00ff")
CLIP_ERROR = ClipError("b.wav", "no such file", "left")
SEGMENTS = tuple(Segment(i, i + 1, "sad", 0.5, {"happy": 0.5, "sad": 0.5}, 1.0) for i in range(40))
SUMMARY = {"happy": {"speech_s": 0.0, "share": 0.0}, "sad": {"speech_s": 40.0, "share": 1.0}}
TIMELINE = Timeline("c.wav", 40.0, ("happy", "sad"), SEGMENTS, SUMMARY)


@pytest.mark.parametrize("item", [ANSWER, CLIP_ERROR, TIMELINE, replace(ANSWER, channel="right")])
def test_to_dict_is_the_record_without_what_belongs_to_the_run(item: Any) -> None:
    record = Style("v1.keras", ("happy", "sad"), key="k").record(item)

    expected = {name: value for name, value in record.items() if name not in ("model", "key")}
    assert item.to_dict() == expected
    assert {"schema", "path", "status"} <= expected.keys()


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (ANSWER, "<Answer a.wav: sad 75.0 %>"),
        (TIMELINE, "<Timeline c.wav: 40 segments in 40.0 s>"),
        (replace(TIMELINE, segments=SEGMENTS[:1]), "<Timeline c.wav: 1 segment in 40.0 s>"),
        (replace(ANSWER, path="\x1b[31m\n.wav"), r"<Answer \x1b[31m\n.wav: sad 75.0 %>"),
    ],
)
def test_repr_is_one_short_line(item: Any, expected: str) -> None:
    assert repr(item) == expected


def test_html_has_a_bar_for_each_label_and_the_warnings() -> None:
    page = ANSWER._repr_html_()

    texts = re.findall(">([^<]+)", page)
    assert texts == ["a.wav: sad 75.0 %", "sad", "75.0 %", "happy", "25.0 %", "clipped"]
    assert re.findall(r'style="width: (\d+)px', page) == ["75", "25"]


def test_html_of_a_long_timeline_stays_short() -> None:
    page = TIMELINE._repr_html_()

    assert page.count("<tr>") == page.count("<div") == 30
    assert page.endswith(">and 10 more")


@pytest.mark.parametrize(
    "item",
    [
        replace(ANSWER, path="<script>", probabilities={"<img src=x>": 1.0}, warnings=("<b>&",)),
        replace(TIMELINE, path="<script>", segments=(replace(SEGMENTS[0], label="<img>"),)),
    ],
)
def test_html_escapes_names(item: Any) -> None:
    page = item._repr_html_()

    assert set(re.findall(r"<(\w+)", page)) <= {"b", "table", "tr", "td", "div", "br"}
    assert page.count("<b>") == 1
