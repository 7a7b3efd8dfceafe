"""The picture shows the labels where they are, and any name and any length can be drawn."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from speechemo_cli.errors import AccessError
from speechemo_cli.inference.plots import draw_timeline as draw
from speechemo_cli.inference.timeline import Segment, Timeline

ANGRY, SAD = "#d55e00", "#0072b2"


def found(
    *parts: tuple[float, float, str],
    duration_s: float = 10.0,
    path: str = "call.wav",
    channel: str | None = None,
) -> Timeline:
    labels = tuple(dict.fromkeys(label for *_, label in parts))
    segments = tuple(Segment(start, end, label, 0.9, {}, 1.0) for start, end, label in parts)
    columns = np.abs(np.random.default_rng(0).normal(0, 0.1, (500, 1)))
    summary = {label: {"speech_s": 1.0, "share": 1 / len(labels)} for label in labels}
    envelope = np.hstack([-columns, columns]).astype(np.float32)
    return Timeline(path, duration_s, labels, segments, summary, (), channel, envelope)


def where(picture: np.ndarray, colour: str) -> np.ndarray:
    """Columns that hold a colour above the legend, as shares of the width."""
    upper = picture[: int(0.7 * len(picture)), :, :3]
    same = (np.abs(upper - np.array(to_rgb(colour))) < 0.02).all(axis=2)
    return np.flatnonzero(same.any(axis=0)) / picture.shape[1]


def test_each_label_has_its_colour_where_it_is() -> None:
    draw(found((1.0, 4.0, "angry"), (6.0, 9.0, "sad")), Path("picture.png"))

    picture = imread("picture.png")
    assert picture.shape[1] == 1650
    angry, sad = where(picture, ANGRY), where(picture, SAD)
    assert angry.min() == pytest.approx(0.1, abs=0.02)
    assert angry.max() == pytest.approx(0.4, abs=0.02)
    assert sad.min() == pytest.approx(0.6, abs=0.02)
    assert sad.max() == pytest.approx(0.9, abs=0.02)


def test_more_segments_than_pixels_show_their_shares() -> None:
    parts = [(float(i), i + 0.9, "sad" if i % 3 == 0 else "angry") for i in range(3000)]
    draw(found(*parts, duration_s=3000.0), Path("picture.png"))

    ribbon = imread("picture.png")[:, 825, :3]
    angry, sad = ((np.abs(ribbon - np.array(to_rgb(c))) < 0.02).all(axis=1) for c in (ANGRY, SAD))
    first = np.flatnonzero(angry | sad)[0]
    assert angry[first : first + 60].sum() > 1.5 * sad[first : first + 60].sum() > 0


@pytest.mark.parametrize("duration_s", [0.3, 7.0, 119.0, 600.0, 20_000.0, 400_000.0])
def test_any_length_is_drawn(duration_s: float) -> None:
    draw(found((0.0, duration_s, "angry"), duration_s=duration_s), Path("picture.png"))

    assert where(imread("picture.png"), ANGRY).max() > 0.95


def test_silence_and_nothing_are_drawn() -> None:
    draw(found(), Path("silence.png"))
    draw(Timeline("call.wav", 0.0, (), (), {}), Path("nothing.png"))

    assert Path("silence.png").stat().st_size > Path("nothing.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "name", ["$x$ and $.wav", "電話.wav", "x" * 240 + ".wav", "new\nline.wav", os.fsdecode(b"caf\xe9.wav")]
)
def test_any_name_is_drawn_without_a_word(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(found((1.0, 2.0, "angry"), path=name, channel="left"), Path("picture.png"))

    assert Path("picture.png").stat().st_size > 1000


def test_labels_of_other_corpora_have_colours_of_their_own() -> None:
    labels = ["joy", "boredom", "disgust", "uncertain", "anxiety"]
    draw(found(*((2 * i, 2 * i + 2.0, label) for i, label in enumerate(labels))), Path("picture.png"))

    ribbon = imread("picture.png")[..., :3]
    row = np.flatnonzero((ribbon < 0.9).any(axis=2).mean(axis=1) > 0.9)[0]
    middle = ribbon[row + 5, [round(1650 * (2 * i + 1) / 10) for i in range(5)]]
    assert len(np.unique(middle.round(2), axis=0)) == 5


def test_the_same_timeline_gives_the_same_bytes() -> None:
    for name in ("one.png", "two.png"):
        draw(found((1.0, 2.0, "angry")), Path(name))

    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_folder_that_cannot_be_made_is_an_access_error() -> None:
    Path("file").write_text("in the way")

    with pytest.raises(AccessError, match=r"cannot write file/picture\.png"):
        draw(found(), Path("file/picture.png"))
