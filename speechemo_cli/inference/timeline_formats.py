"""Timelines as text that other programs read: subtitles, label tracks, RTTM, and rows of a table."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from speechemo_cli.inference.timeline import Timeline

# Which channel of the file RTTM says it is; the mean of all goes as the first.
_CHANNELS = {None: "1", "left": "1", "right": "2"}


def to_srt(timeline: Timeline) -> str:
    """Write subtitles (SubRip) that show the label and the confidence; empty where nobody speaks."""
    cues = [
        f"{number}\n{_clock(one.start_s)} --> {_clock(one.end_s)}\n"
        f"{_one_line(one.label).replace('-->', '->')} ({one.confidence:.0%})\n"
        for number, one in enumerate(timeline.segments, start=1)
    ]
    return "\n".join(cues)


def to_audacity(timeline: Timeline) -> str:
    """Write a label track as Audacity imports it: start and end in seconds, and label, with tabs between."""
    return "".join(
        f"{_exact(one.start_s):.3f}\t{_exact(one.end_s):.3f}\t{_one_line(one.label)}\n"
        for one in timeline.segments
    )


def to_rttm(timeline: Timeline) -> str:
    """Write NIST's Rich Transcription Time Marked format: one line a segment, ten fields each.

    RTTM knows no emotions, so each label stands where a speaker's name would: a `SPEAKER` line is the
    one kind of line that every reader of RTTM takes, and what scores who spoke when then scores who
    felt what when. The ninth field is the confidence. (NIST, RT-09 evaluation plan, appendix A.)
    """
    name = _one_word(display_name(PurePath(timeline.path).stem))
    channel = _CHANNELS.get(timeline.channel) or timeline.channel
    return "".join(
        f"SPEAKER {name} {channel} {_exact(one.start_s):.3f} {_exact(one.end_s) - _exact(one.start_s):.3f} "
        f"<NA> <NA> {_one_word(one.label)} {one.confidence:.3f} <NA>\n"
        for one in timeline.segments
    )


def columns(timeline: Timeline) -> list[str]:
    """Return the names of the columns of `rows`."""
    first = ["path", "channel", "start_s", "end_s", "label", "confidence", "speech_share"]
    return [*first, *timeline.labels]


def rows(timeline: Timeline) -> list[list[str | float]]:
    """Return one row a segment, with seconds to the millisecond and probabilities to six places."""
    return [
        [
            timeline.path,
            timeline.channel or "",
            _exact(one.start_s),
            _exact(one.end_s),
            one.label,
            round(one.confidence, 6),
            round(one.speech_share, 6),
            *(round(one.probabilities[label], 6) for label in timeline.labels),
        ]
        for one in timeline.segments
    ]


def _exact(seconds: float) -> float:
    # By way of whole milliseconds, so that all formats round a time to the same side.
    return round(seconds * 1000) / 1000


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds, as SubRip has them."""
    rest, ms = divmod(round(seconds * 1000), 1000)
    minutes, s = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{s:02d},{ms:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _one_word(text: str) -> str:
    return re.sub(r"\s+", "_", text.strip()) or "-"
