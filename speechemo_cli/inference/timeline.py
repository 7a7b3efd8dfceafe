"""Emotion over time in a recording of any length."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.audio.reader import channel_names, cut, open_blocks
from speechemo_cli.errors import ConfigError
from speechemo_cli.formatting import counted, percent
from speechemo_cli.inference import Result, segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.audio.reader import Blocks
    from speechemo_cli.inference import Style
    from speechemo_cli.inference.predictor import Predictor

    OnProgress = Callable[[int, int | None, str], None]

# Windows that go through the network together, and are in memory at a time.
_BATCH = 16
# A longer pause ends an utterance: no window reaches across it. Runs of speech are a tenth of a second
# longer than what was taken of them, so this is a third of a second of silence.
_UTTERANCE_PAUSE_S = 0.25
# A pause of so many frames, a second, ends a segment, even if the next has the same label.
_SEGMENT_PAUSE = vad.FRAMES_A_SECOND
# Silence around an utterance that is taken with it, as every clip has some.
_MARGIN_S = 0.1
NO_SPEECH = "no speech found"


@dataclass(frozen=True)
class Segment:
    """A part of a recording with one label.

    Attributes
    ----------
    start_s, end_s : float
    label : str
        Or `uncertain`, where the confidence is below what was asked for.
    confidence : float
        The highest mean probability.
    probabilities : dict of str to float
        Mean over the speech of the segment; they sum to 1.
    speech_share : float
        Share of the segment that is speech; the rest is pauses.
    """

    start_s: float
    end_s: float
    label: str
    confidence: float
    probabilities: dict[str, float]
    speech_share: float


@dataclass(frozen=True, repr=False)
class Timeline(Result):
    """Emotion over time.

    Attributes
    ----------
    path : str
        As it was given.
    duration_s : float
    labels : tuple of str
        All that could have been answered.
    segments : tuple of Segment
        In order, none within another. Where there is none, nobody speaks.
    summary : dict of str to dict
        For each label `speech_s`, the seconds of speech with it, and `share`, its share of all speech.
    warnings : tuple of str
        What is wrong with the recording.
    channel : str or None
        Which channel this is of; None for the mean of all.
    envelope : np.ndarray [shape=(columns, 2), dtype=float32]
        Lowest and highest sample of up to 2000 equal parts of the recording.
    """

    path: str
    duration_s: float
    labels: tuple[str, ...]
    segments: tuple[Segment, ...]
    summary: dict[str, dict[str, float]]
    warnings: tuple[str, ...] = ()
    channel: str | None = None
    envelope: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 2), np.float32), compare=False, repr=False
    )

    def _summary(self) -> str:
        return f"{counted(len(self.segments), 'segment')} in {self.duration_s:.1f} s"

    def _rows(self) -> list[tuple[str, str, float | None]]:
        return [
            (f"{one.start_s:.1f}-{one.end_s:.1f} s", f"{one.label} {percent(one.confidence)}", one.confidence)
            for one in self.segments
        ]

    def _record(self, style: Style) -> dict[str, Any]:
        return {
            "duration_s": round(self.duration_s, 3),
            "segments": [_rounded(asdict(segment)) for segment in self.segments],
            "summary": _rounded(self.summary),
            "model": style.model,
            "warnings": list(self.warnings),
        }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the millisecond, shares and probabilities to six places."""
    out = dict(values)
    for key, value in values.items():
        if isinstance(value, dict):
            out[key] = _rounded(value)
        elif isinstance(value, float):
            out[key] = round(value, 3 if key.endswith("_s") else 6)
    return out


def timelines(
    predictor: Predictor,
    path: str | os.PathLike[str],
    *,
    window_s: float = 3.0,
    hop_s: float = 1.0,
    on_progress: OnProgress = lambda *_: None,
) -> Iterator[Timeline]:
    """Find the emotion over time in each channel that the predictor answers for.

    A recording is read twice. The first time finds the speech by its energy. Pauses cut it into utterances,
    and the second time the model answers for each: as a whole if it is no longer than a window, else for
    windows that overlap. Memory does not grow but for some bytes a frame of 10 ms.

    Parameters
    ----------
    predictor : Predictor
    path : path-like
        A regular file. `audio.max_duration_s` does not apply.
    window_s : float
        The longest part that gets one answer: 0.5 to 60.
    hop_s : float
        From one window to the next, within long utterances: 0.1 up to the window.
    on_progress : callable, optional
        Called with (seconds done, seconds in all or None, "finding speech" or "predicting").

    Yields
    ------
    Timeline
        Without segments and with a warning where nobody speaks.

    Raises
    ------
    AudioError
        The recording cannot be read, or changed between the two times.
    ConfigError
        A window or hop that is out of bounds.
    """
    for name, value, low, high, why in (
        ("window_s", window_s, 0.5, 60.0, ""),
        ("hop_s", hop_s, 0.1, window_s, ", which is the window"),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value:g}, expected {low:g} to {high:g} seconds{why}")
    window, hop = (round(s * vad.FRAMES_A_SECOND) for s in (window_s, hop_s))
    each = predictor.channel == "each"
    for channel in channel_names(path, predictor.config.audio) if each else (predictor.channel,):
        yield _timeline(predictor, path, channel, window, hop, on_progress)


def _timeline(
    predictor: Predictor,
    path: str | os.PathLike[str],
    channel: str,
    window: int,
    hop: int,
    on_progress: OnProgress,
) -> Timeline:
    opened = partial(open_blocks, path, predictor.sr, predictor.config.audio, channel)
    with opened() as blocks:
        track = vad.measure(_counted(blocks, "finding speech", on_progress), predictor.sr)
        duration_s, warnings = blocks.duration_s, blocks.warnings
    runs = vad.detect_speech(track.levels)
    found: list[segmentation.RawSegment] = []
    if len(runs):
        utterances = vad.join(runs, _UTTERANCE_PAUSE_S)
        utterances = vad.widen(utterances, _MARGIN_S, _MARGIN_S, len(track.levels))
        windows = segmentation.plan(utterances, window, hop)
        with opened() as blocks:
            stream = _counted(blocks, "predicting", on_progress)
            waveforms = cut(stream, windows.spans * track.frame_length)
            batches = iter(lambda: list(islice(waveforms, _BATCH)), [])
            rows = np.concatenate([predictor.probabilities(batch) for batch in batches])
        found = segmentation.cut_by_label(runs, utterances, windows, rows, track.levels, _SEGMENT_PAUSE)
        found = segmentation.merge_low_confidence(found, predictor.min_confidence, _SEGMENT_PAUSE)
    segments = tuple(_segment(one, predictor, track.frame_length, duration_s) for one in found)
    return Timeline(
        os.fsdecode(path),
        duration_s,
        predictor.labels,
        segments,
        _summary(segments, predictor.labels),
        warnings if len(runs) else (*warnings, NO_SPEECH),
        None if channel == "mix" else channel,
        track.envelope,
    )


def _counted(blocks: Blocks, stage: str, on_progress: OnProgress) -> Iterator[NDArray[np.float32]]:
    """Pass blocks on and tell how far they go."""
    total = None if blocks.promised_s is None else round(blocks.promised_s)
    for block in blocks:
        on_progress(round(blocks.duration_s), total, stage)
        yield block


def _segment(
    raw: segmentation.RawSegment, predictor: Predictor, frame_length: int, duration_s: float
) -> Segment:
    label, confidence, probabilities = predictor.choose(raw.probabilities)
    return Segment(
        raw.first * frame_length / predictor.sr,
        min(raw.last * frame_length / predictor.sr, duration_s),
        label,
        confidence,
        probabilities,
        raw.speech / (raw.last - raw.first),
    )


def _summary(segments: Sequence[Segment], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds and share of all speech for each label; `uncertain` only where there is some."""
    speech = dict.fromkeys(labels, 0.0)
    for one in segments:
        seconds = one.speech_share * (one.end_s - one.start_s)
        speech[one.label] = speech.get(one.label, 0.0) + seconds
    total = sum(speech.values())
    return {
        label: {"speech_s": seconds, "share": seconds / total if total else 0.0}
        for label, seconds in speech.items()
    }
