"""A clip as a picture: waveform, mel spectrogram, MFCCs, pitch and the answer, as PNG."""

from __future__ import annotations

from pathlib import PurePath
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.errors import DataError
from speechemo_cli.files import display_name
from speechemo_cli.inference.timeline_plot import label_colours, short_title
from speechemo_cli.plotting import drawable, drawing, new_figure, save_png

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.inference.predictor import Answer

# As the feature set `mfcc`: with librosa's defaults at this rate, windows of 93 ms every 23 ms.
SR = 22050
_N_MFCC = 40
# From the lowest voices of men to the highest of excited children.
_LOWEST_HZ, _HIGHEST_HZ = 65.0, 600.0
# A picture shows no more, and finding the pitch takes a fifth of the time that the clip lasts.
LONGEST_S = 60.0
_SPEECH, _LINE = "#56b4e9", "#0072b2"


@drawing()
def draw(y: NDArray[np.float32], answer: Answer, path: Path) -> None:
    """Draw what is in a clip, over the answer for it.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples at `SR`.
    answer : Answer
    path : Path
        Where the PNG goes.

    Raises
    ------
    DataError
        The clip is longer than `LONGEST_S`.
    AccessError
        The picture cannot be written.
    """
    duration_s = len(y) / SR
    if duration_s > LONGEST_S:
        raise DataError(
            f"{display_name(answer.path)} lasts {duration_s:.0f} s, expected up to {LONGEST_S:.0f} s",
            "For longer recordings: speechemo timeline RECORDING --plot FILE.png",
        )
    figure = new_figure(9, 10.5)
    above, below = figure.subfigures(2, 1, height_ratios=(4.6, 1))
    wave, mel, mfcc, pitch = above.subplots(4, 1, sharex=True, height_ratios=(1, 1.5, 1.5, 1))
    speech = vad.detect_speech(vad.measure([y], SR).levels) / vad.FRAMES_A_SECOND
    _draw_wave(wave, y, speech)
    _draw_spectra(above, mel, mfcc, y)
    _draw_pitch(pitch, *track_pitch(y, speech))
    pitch.set_xlim(0, duration_s)
    pitch.set_xlabel("time (s)")
    _draw_answer(below.subplots(), answer)
    figure.suptitle(short_title(drawable(PurePath(answer.path).name)), fontsize=11)
    save_png(figure, path)


def _draw_wave(axis: Any, y: NDArray[np.float32], speech: NDArray[np.float64]) -> None:
    import librosa.display

    librosa.display.waveshow(y, sr=SR, ax=axis, color=_LINE, linewidth=0.6)
    for i, (start, end) in enumerate(speech):
        axis.axvspan(start, end, color=_SPEECH, alpha=0.25, linewidth=0, label=None if i else "speech")
    axis.set(ylabel="amplitude", xlabel="")
    if len(speech):
        axis.legend(loc="upper right", fontsize=8)


def _draw_spectra(figure: Any, above: Any, below: Any, y: NDArray[np.float32]) -> None:
    """Draw the mel spectrogram and the MFCCs that come of it."""
    import librosa.display

    levels = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=SR), ref=np.max)
    image = librosa.display.specshow(levels, sr=SR, x_axis="time", y_axis="mel", ax=above, cmap="magma")
    figure.colorbar(image, ax=above, label="level (dB)", pad=0.01)
    # The first is the level, the next are large: the others would have no colours left.
    mfccs = librosa.feature.mfcc(S=levels, n_mfcc=_N_MFCC)[1:]
    most = np.percentile(np.abs(mfccs), 98)
    image = librosa.display.specshow(
        mfccs, sr=SR, x_axis="time", ax=below, cmap="coolwarm", vmin=-most, vmax=most
    )
    figure.colorbar(image, ax=below, label="MFCC", pad=0.01, extend="both")
    above.set(ylabel="frequency (Hz, mel scale)", xlabel="")
    below.set(ylabel=f"MFCCs 1 to {_N_MFCC - 1}", xlabel="")


def track_pitch(
    y: NDArray[np.float32], speech: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the pitch of the voiced parts of speech by pYIN (Mauch and Dixon, 2014).

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples at `SR`.
    speech : np.ndarray [shape=(runs, 2)]
        Begin and end in seconds of each run of speech: noise and hum have a pitch too, which is nobody's.

    Returns
    -------
    times : np.ndarray [shape=(frames,)]
        In seconds.
    f0 : np.ndarray [shape=(frames,)]
        In Hz; NaN where no voice is.
    """
    import librosa

    f0, *_ = librosa.pyin(y, fmin=_LOWEST_HZ, fmax=_HIGHEST_HZ, sr=SR)
    times = librosa.times_like(f0, sr=SR)
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
    labels = list(answer.probabilities)
    shares = [100 * share for share in answer.probabilities.values()]
    colours = label_colours(labels)
    bars = axis.bar(labels, shares, color=[colours[label] for label in labels])
    axis.bar_label(bars, [f"{share:.0f} %" for share in shares], fontsize=8)
    axis.set(ylabel="probability (%)", ylim=(0, 112), yticks=(0, 50, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{answer.label} ({answer.confidence:.0%})", fontsize=10)
    notes = "\n".join(fill(warning, 130) for warning in answer.warnings)
    axis.set_xlabel(notes, fontsize=7, color="#a00000")
