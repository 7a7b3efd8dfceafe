"""A timeline's picture shows the labels where they are, and any name and any length can be drawn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from speechemo_cli.inference.plots import draw_timeline
from speechemo_cli.inference.timeline import Segment, Timeline

pytestmark = pytest.mark.filterwarnings("error")

ANGRY, SAD = "#d55e00", "#0072b2"


def found(*parts: tuple[float, float, str], duration_s: float = 10.0, **more: str) -> Timeline:
    labels = tuple(dict.fromkeys(label for *_, label in parts))
    columns = np.abs(np.random.default_rng(0).normal(0, 0.1, (500, 1)))
    return Timeline(
        **{"path": "call.wav", **more},
        duration_s=duration_s,
        labels=labels,
        segments=tuple(Segment(start, end, label, 0.9, {}, 1.0) for start, end, label in parts),
        summary={label: {"speech_s": 1.0, "share": 1 / len(labels)} for label in labels},
        envelope=np.hstack([-columns, columns]).astype(np.float32),
    )


def drawn(timeline: Timeline) -> np.ndarray:
    draw_timeline(timeline, Path("picture.png"))
    return imread("picture.png")[..., :3]


def ends(picture: np.ndarray, colour: str) -> list[float]:
    """First and last column that holds a colour above the legend, as shares of the width."""
    upper = picture[: int(0.7 * len(picture))]
    same = (np.abs(upper - np.array(to_rgb(colour))) < 0.02).all(axis=2)
    return (np.flatnonzero(same.any(axis=0))[[0, -1]] / picture.shape[1]).tolist()


def test_draw_timeline_shows_each_label_where_it_is_and_writes_the_same_bytes_again() -> None:
    timeline = found((1.0, 4.0, "angry"), (6.0, 9.0, "sad"))

    picture = drawn(timeline)
    once = Path("picture.png").read_bytes()

    assert picture.shape[1] == 1650
    assert ends(picture, ANGRY) == pytest.approx([0.1, 0.4], abs=0.02)
    assert ends(picture, SAD) == pytest.approx([0.6, 0.9], abs=0.02)
    drawn(timeline)
    assert Path("picture.png").read_bytes() == once


def test_draw_timeline_shows_the_shares_of_more_segments_than_pixels() -> None:
    parts = [(float(i), i + 0.9, "sad" if i % 3 == 0 else "angry") for i in range(3000)]

    ribbon = drawn(found(*parts, duration_s=3000.0))[:, 825]

    angry, sad = ((np.abs(ribbon - np.array(to_rgb(c))) < 0.02).all(axis=1) for c in (ANGRY, SAD))
    first = np.flatnonzero(angry | sad)[0]
    assert angry[first : first + 60].sum() > 1.5 * sad[first : first + 60].sum() > 0


@pytest.mark.parametrize(
    ("duration_s", "name"),
    [
        (0.3, "$x$ and $.wav"),
        (7.0, "電話.wav"),
        (600.0, "x" * 240 + ".wav"),
        (20_000.0, "new\nline.wav"),
        (400_000.0, os.fsdecode(b"caf\xe9.wav")),
    ],
)
def test_draw_timeline_takes_any_length_and_any_name(duration_s: float, name: str) -> None:
    timeline = found((0.0, duration_s, "angry"), duration_s=duration_s, path=name, channel="left")

    assert ends(drawn(timeline), ANGRY)[1] > 0.95


def test_draw_timeline_draws_silence_and_nothing() -> None:
    draw_timeline(found(), Path("silence.png"))
    draw_timeline(Timeline("call.wav", 0.0, (), (), {}), Path("nothing.png"))

    assert Path("silence.png").stat().st_size > Path("nothing.png").stat().st_size > 1000


def test_draw_timeline_gives_labels_of_other_corpora_colours_of_their_own() -> None:
    labels = ["joy", "boredom", "disgust", "uncertain", "anxiety"]

    ribbon = drawn(found(*((2 * i, 2 * i + 2.0, label) for i, label in enumerate(labels))))

    row = np.flatnonzero((ribbon < 0.9).any(axis=2).mean(axis=1) > 0.9)[0]
    middle = ribbon[row + 5, [round(1650 * (2 * i + 1) / 10) for i in range(5)]]
    assert len(np.unique(middle.round(2), axis=0)) == 5
