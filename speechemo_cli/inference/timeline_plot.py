"""A timeline as a picture: the waveform under a ribbon of emotions, as PNG."""

from __future__ import annotations

from itertools import cycle
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.plotting import drawable, drawing, new_figure, save_png

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.inference.timeline import Timeline

# Okabe & Ito's colours, which people with any kind of colour vision can tell apart: warm ones where
# the voice is up, cold ones where it is down.
_COLOURS = {
    "neutral": "#666666",
    "calm": "#56b4e9",
    "happy": "#f0e442",
    "sad": "#0072b2",
    "angry": "#d55e00",
    "fearful": "#cc79a7",
    "disgust": "#009e73",
    "surprised": "#e69f00",
    "uncertain": "#bdbdbd",
}
# For labels that other corpora have.
_OTHERS = ("#393b79", "#637939", "#843c39", "#7b4173", "#6b6ecf", "#b5cf6b", "#ad494a", "#a55194")
_SILENCE = "#e0e0e0"
# Columns and rows of the ribbon: about the pixels it has. More segments than a person can tell apart
# are summed up in fewer columns.
_COLUMNS, _ROWS = 1600, 60
_MOST_SEGMENTS, _FEW_COLUMNS = 300, 160
_LONGEST_NAME = 100
# Seconds between marks on the axis that people like, and the most marks that fit.
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_MOST_MARKS = 12


@drawing()
def draw(timeline: Timeline, path: Path) -> None:
    """Draw how somebody sounds, and when: a ribbon of colours over the envelope of the waveform.

    Where there are too many segments to tell apart, the ribbon shows the share of each label in a
    small part of the recording, one above the other. The envelope is drawn by the square root, so
    that quiet voices are seen beside loud ones.

    Parameters
    ----------
    timeline : Timeline
    path : Path
        Where the PNG goes.

    Raises
    ------
    AccessError
        It cannot be written.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    figure = new_figure(11, 3.4)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.0)
    ribbon, wave = figure.subplots(2, 1, sharex=True, height_ratios=(1, 5))
    duration_s = max(timeline.duration_s, 1e-3)
    present = [label for label in timeline.summary if any(one.label == label for one in timeline.segments)]
    palette = label_colours(present)
    colours = np.array([to_rgb(palette[label]) for label in present] or [to_rgb("white")])

    columns = _COLUMNS if len(timeline.segments) <= _MOST_SEGMENTS else _FEW_COLUMNS
    shares = _shares(timeline, present, columns)
    image, extent = _bands(shares, colours), (0, duration_s, 0, 1)
    ribbon.imshow(image, aspect="auto", extent=extent, interpolation="nearest")
    ribbon.set_yticks([])
    ribbon.tick_params(axis="x", length=0, labelbottom=False)
    ribbon.spines[:].set_visible(False)

    at = np.arange(len(timeline.envelope)) * shares.shape[1] // max(len(timeline.envelope), 1)
    spoken = (shares.sum(axis=0) > 0)[at]
    faces = np.where(spoken[:, None], colours[shares.argmax(axis=0)[at]], to_rgb(_SILENCE))
    _wave(wave, timeline.envelope, duration_s, faces)
    _clock_axis(wave, duration_s)

    title = short_title(drawable(PurePath(timeline.path).name))
    if timeline.channel is not None:
        title += f" ({timeline.channel})"
    figure.suptitle(title, fontsize=10)
    entries = [
        Patch(color=palette[label], label=f"{drawable(label)} {timeline.summary[label]['share']:.0%}")
        for label in present
    ] or [Patch(color=_SILENCE, label="nobody speaks")]
    figure.legend(handles=entries, loc="outside lower center", ncols=9, frameon=False, fontsize=8)
    save_png(figure, path)


def short_title(name: str) -> str:
    """Leave out the middle of a name that is too long for a title."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """Return a colour for each label, as matplotlib names it."""
    others = cycle(_OTHERS)
    return {label: _COLOURS.get(label) or next(others) for label in labels}


def _shares(timeline: Timeline, labels: Sequence[str], columns: int) -> NDArray[np.float64]:
    """Share of each label in what is labelled of each column [shape=(labels, columns)]."""
    held = np.zeros((max(1, len(labels)), columns))
    scale = columns / max(timeline.duration_s, 1e-3)
    for one in timeline.segments:
        start, end = one.start_s * scale, min(one.end_s * scale, columns)
        first, last = int(start), min(int(end), columns - 1)
        row = held[labels.index(one.label)]
        row[first : last + 1] += 1
        row[first] -= start - first
        row[last] -= last + 1 - end
    total = held.sum(axis=0)
    return np.asarray(held / np.where(total > 0, total, 1.0))


def _bands(shares: NDArray[np.float64], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colour each column from top to bottom by shares: an image [shape=(rows, columns, 4)]."""
    until = np.cumsum(shares, axis=0)
    at = (np.arange(_ROWS) + 0.5) / _ROWS
    which = (at[:, None, None] > until[None, :-1]).sum(axis=1)
    opaque = np.broadcast_to((shares.sum(axis=0) > 0)[None, :, None], (*which.shape, 1))
    return np.concatenate([colours[which], opaque], axis=2)


def _wave(axis: Any, envelope: NDArray[np.float32], duration_s: float, faces: NDArray[np.float64]) -> None:
    """Draw one box a column from its lowest to its highest sample."""
    from matplotlib.collections import PolyCollection

    n = len(envelope)
    low, high = (np.sign(envelope) * np.sqrt(np.abs(envelope))).T.astype(np.float64)
    peak = max(float(np.abs(envelope).max(initial=0.0)) ** 0.5, 1e-3)
    # Silence is a line, not nothing.
    thin = 0.006 * peak
    low, high = np.minimum(low, -thin), np.maximum(high, thin)
    edges = np.arange(n + 1) * (duration_s / max(n, 1))
    left, right = edges[:-1], edges[1:]
    corners = np.stack(
        [np.stack(pair, axis=1) for pair in ((left, low), (left, high), (right, high), (right, low))], axis=1
    )
    axis.add_collection(PolyCollection(list(corners), facecolors=faces, linewidths=0, antialiaseds=False))
    axis.set_xlim(0, duration_s)
    axis.set_ylim(-1.03 * peak, 1.03 * peak)
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)


def _clock_axis(axis: Any, duration_s: float) -> None:
    """Mark round times, as seconds, minutes or hours."""
    step = next((s for s in _STEPS_S if duration_s / s <= _MOST_MARKS), duration_s / _MOST_MARKS)
    ticks = np.arange(0, duration_s + step / 1000, step)
    if duration_s < 120:
        texts, unit = [f"{t:.{1 if step < 1 else 0}f}" for t in ticks], "s"
    elif duration_s < 3600:
        texts, unit = [f"{t // 60:.0f}:{t % 60:02.0f}" for t in ticks], "minutes:seconds"
    else:
        texts, unit = [f"{t // 3600:.0f}:{t // 60 % 60:02.0f}:{t % 60:02.0f}" for t in ticks], "h:mm:ss"
    axis.set_xticks(ticks, texts)
    axis.set_xlabel(f"time ({unit})")
