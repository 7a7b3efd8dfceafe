"""Pictures of a clip and of a timeline, as PNG."""

from __future__ import annotations

from itertools import cycle
from pathlib import PurePath
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.errors import DataError
from speechemo_cli.files import display_name
from speechemo_cli.plotting import drawable, drawing, new_figure, save_png

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.inference.predictor import Answer
    from speechemo_cli.inference.timeline import Timeline

# Okabe & Ito's colours, which people with any kind of colour vision can tell from one another: warm ones
# where the voice is up, cold ones where it is down.
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
# For labels of other corpora.
_OTHERS = ("#393b79", "#637939", "#843c39", "#7b4173", "#6b6ecf", "#b5cf6b", "#ad494a", "#a55194")
_LONGEST_NAME = 100

# Clips, as the feature set `mfcc`: with librosa's defaults at this rate, windows of 93 ms every 23 ms.
CLIP_SR = 22050
_N_MFCC = 40
# From the lowest voices of men to the highest of excited children.
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 600.0
# A picture shows no more, and finding the pitch takes a fifth of the time that the clip lasts.
_LONGEST_CLIP_S = 60.0
_SPEECH, _LINE = "#56b4e9", "#0072b2"

# Timelines.
_SILENCE = "#e0e0e0"
# Columns and rows of the ribbon: about the pixels it has. Where there are too many segments to see each,
# they are summed up in fewer columns.
_COLUMNS, _ROWS = 1600, 60
_MOST_SEGMENTS, _FEW_COLUMNS = 300, 160
# Round numbers of seconds between marks on the axis, and the most marks that fit.
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_MOST_MARKS = 12


@drawing()
def draw_clip(y: NDArray[np.float32], answer: Answer, path: Path) -> None:
    """Draw waveform, mel spectrogram, MFCCs and pitch of `y` [shape=(n,)] at `CLIP_SR`, and the answer.

    Raises DataError for a clip of more than a minute, and AccessError if the picture cannot be written.
    """
    duration_s = len(y) / CLIP_SR
    if duration_s > _LONGEST_CLIP_S:
        raise DataError(
            f"{display_name(answer.path)} lasts {duration_s:.0f} s, expected up to {_LONGEST_CLIP_S:.0f} s",
            "For longer recordings: speechemo timeline RECORDING --plot FILE.png",
        )
    figure = new_figure(9, 10.5)
    above, below = figure.subfigures(2, 1, height_ratios=(4.6, 1))
    wave, mel, mfcc, pitch = above.subplots(4, 1, sharex=True, height_ratios=(1, 1.5, 1.5, 1))
    speech = vad.detect_speech(vad.measure([y], CLIP_SR).levels) / vad.FRAMES_A_SECOND
    _draw_wave(wave, y, speech)
    _draw_spectra(above, mel, mfcc, y)
    _draw_pitch(pitch, *track_pitch(y, speech))
    pitch.set(xlim=(0, duration_s), xlabel="time (s)")
    _draw_answer(below.subplots(), answer)
    figure.suptitle(_title(answer.path), fontsize=11)
    save_png(figure, path)


def _title(path: str) -> str:
    """Return the name of a file without its middle where it is too long."""
    name, half = drawable(PurePath(path).name), _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _label_colours(labels: Sequence[str]) -> dict[str, str]:
    others = cycle(_OTHERS)
    return {label: _COLOURS.get(label) or next(others) for label in labels}


def _draw_wave(axis: Any, y: NDArray[np.float32], speech: NDArray[np.float64]) -> None:
    import librosa.display

    librosa.display.waveshow(y, sr=CLIP_SR, ax=axis, color=_LINE, linewidth=0.6)
    for i, (start, end) in enumerate(speech):
        axis.axvspan(start, end, color=_SPEECH, alpha=0.25, linewidth=0, label=None if i else "speech")
    axis.set(ylabel="amplitude", xlabel="")
    if len(speech):
        axis.legend(loc="upper right", fontsize=8)


def _draw_spectra(figure: Any, above: Any, below: Any, y: NDArray[np.float32]) -> None:
    """Draw the mel spectrogram and the MFCCs that come of it."""
    import librosa.display

    levels = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=CLIP_SR), ref=np.max)
    image = librosa.display.specshow(levels, sr=CLIP_SR, x_axis="time", y_axis="mel", ax=above, cmap="magma")
    figure.colorbar(image, ax=above, label="level (dB)", pad=0.01)
    # The first is the level, the next are large: the others would have no colours left.
    mfccs = librosa.feature.mfcc(S=levels, n_mfcc=_N_MFCC)[1:]
    most = np.percentile(np.abs(mfccs), 98)
    image = librosa.display.specshow(
        mfccs, sr=CLIP_SR, x_axis="time", ax=below, cmap="coolwarm", vmin=-most, vmax=most
    )
    figure.colorbar(image, ax=below, label="MFCC", pad=0.01, extend="both")
    above.set(ylabel="frequency (Hz, mel scale)", xlabel="")
    below.set(ylabel=f"MFCCs 1 to {_N_MFCC - 1}", xlabel="")


def track_pitch(
    y: NDArray[np.float32], speech: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the pitch of `y` at `CLIP_SR` by pYIN (Mauch and Dixon, 2014), where `speech` is.

    `speech` has begin and end in seconds of each run [shape=(runs, 2)]: noise and hum have a pitch too.
    Returns times in seconds, and Hz or NaN, both [shape=(frames,)].
    """
    import librosa

    f0, *_ = librosa.pyin(y, fmin=_LOWEST_HZ, fmax=_HIGHEST_HZ, sr=CLIP_SR)
    times = librosa.times_like(f0, sr=CLIP_SR)
    spoken = np.any([(start <= times) & (times < end) for start, end in speech], axis=0)
    return times, np.where(spoken, f0, np.nan)


def _draw_pitch(axis: Any, times: NDArray[np.float64], f0: NDArray[np.float64]) -> None:
    axis.plot(times, f0, ".-", color=_LINE, markersize=3, linewidth=1)
    if np.isfinite(f0).any():
        median = np.nanmedian(f0)
        axis.axhline(median, color="#888888", linewidth=0.8, linestyle="--")
        axis.set_title(f"median {median:.0f} Hz", fontsize=8, loc="right")
    else:
        axis.set_ylim(_LOWEST_HZ, _HIGHEST_HZ)
    axis.set_ylabel("pitch (Hz)")
    axis.grid(alpha=0.25)


def _draw_answer(axis: Any, answer: Answer) -> None:
    colours = _label_colours(list(answer.probabilities))
    shares = [100 * share for share in answer.probabilities.values()]
    bars = axis.bar(list(colours), shares, color=list(colours.values()))
    axis.bar_label(bars, [f"{share:.0f} %" for share in shares], fontsize=8)
    axis.set(ylabel="probability (%)", ylim=(0, 112), yticks=(0, 50, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{answer.label} ({answer.confidence:.0%})", fontsize=10)
    notes = "\n".join(fill(warning, 130) for warning in answer.warnings)
    axis.set_xlabel(notes, fontsize=7, color="#a00000")


@drawing()
def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw a ribbon of colours over the envelope of the waveform. Raises AccessError as `save_png` does.

    Where there are too many segments to see each, the ribbon shows the share of each label in a
    small part of the recording, one above the other. The envelope is drawn by the square root, so
    that quiet voices are seen beside loud ones.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    figure = new_figure(11, 3.4)
    figure.get_layout_engine().set(h_pad=0.02, hspace=0.0)
    ribbon, wave = figure.subplots(2, 1, sharex=True, height_ratios=(1, 5))
    duration_s = max(timeline.duration_s, 1e-3)
    present = [label for label in timeline.summary if any(one.label == label for one in timeline.segments)]
    palette = _label_colours(present)
    colours = np.array([to_rgb(palette[label]) for label in present] or [to_rgb("white")])

    columns = _COLUMNS if len(timeline.segments) <= _MOST_SEGMENTS else _FEW_COLUMNS
    shares = _shares(timeline, present, columns)
    extent = (0, duration_s, 0, 1)
    ribbon.imshow(_bands(shares, colours), aspect="auto", extent=extent, interpolation="nearest")
    ribbon.set_yticks([])
    ribbon.tick_params(axis="x", length=0, labelbottom=False)
    ribbon.spines[:].set_visible(False)

    at = np.arange(len(timeline.envelope)) * shares.shape[1] // max(len(timeline.envelope), 1)
    spoken = (shares.sum(axis=0) > 0)[at]
    faces = np.where(spoken[:, None], colours[shares.argmax(axis=0)[at]], to_rgb(_SILENCE))
    _draw_envelope(wave, timeline.envelope, duration_s, faces)
    _mark_times(wave, duration_s)

    channel = f" ({timeline.channel})" if timeline.channel else ""
    figure.suptitle(_title(timeline.path) + channel, fontsize=10)
    entries = [
        Patch(color=palette[label], label=f"{drawable(label)} {timeline.summary[label]['share']:.0%}")
        for label in present
    ] or [Patch(color=_SILENCE, label="nobody speaks")]
    figure.legend(handles=entries, loc="outside lower center", ncols=9, frameon=False, fontsize=8)
    save_png(figure, path)


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


def _draw_envelope(
    axis: Any, envelope: NDArray[np.float32], duration_s: float, faces: NDArray[np.float64]
) -> None:
    """Draw one box a column from its lowest to its highest sample."""
    from matplotlib.collections import PolyCollection

    low, high = (np.sign(envelope) * np.sqrt(np.abs(envelope))).T.astype(np.float64)
    peak = max(float(np.abs(envelope).max(initial=0.0)) ** 0.5, 1e-3)
    # Silence is drawn as a line.
    thin = 0.006 * peak
    low, high = np.minimum(low, -thin), np.maximum(high, thin)
    edges = np.arange(len(envelope) + 1) * (duration_s / max(len(envelope), 1))
    left, right = edges[:-1], edges[1:]
    corners = np.array([[left, low], [left, high], [right, high], [right, low]]).transpose(2, 0, 1)
    axis.add_collection(PolyCollection(list(corners), facecolors=faces, linewidths=0, antialiaseds=False))
    axis.set(xlim=(0, duration_s), ylim=(-1.03 * peak, 1.03 * peak), yticks=[])
    axis.spines[["top", "right", "left"]].set_visible(False)


def _mark_times(axis: Any, duration_s: float) -> None:
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
