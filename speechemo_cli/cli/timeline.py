"""`speechemo timeline`: emotion over time in long recordings."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechemo_cli.choices import Channel, TimelineFormat
from speechemo_cli.cli import answers, inputs, options, outputs, terminal
from speechemo_cli.cli.answers import Writer, csv_line, name
from speechemo_cli.cli.outputs import protect
from speechemo_cli.cli.predict import files_of, open_predictor
from speechemo_cli.errors import AudioError, ClipError, ConfigError
from speechemo_cli.files import display_name, scratch_folder
from speechemo_cli.inference import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from speechemo_cli.inference.timeline import Timeline

# Formats that hold one recording a file.
_SINGLE = (TimelineFormat.srt, TimelineFormat.audacity)
_RIBBON = 20
# Which channel of the file RTTM says it is; the mean of all goes as the first.
_CHANNELS = {None: "1", "left": "1", "right": "2"}


def run(
    recordings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECORDING]...",
            show_default=False,
            help="Audio files of any length, folders of them, or - for audio on stdin.",
        ),
    ] = None,
    files_from: options.FilesFrom = None,
    format_: Annotated[
        TimelineFormat | None,
        typer.Option(
            "--format", "-f", show_default="table; jsonl in a pipe", help="How to print the segments."
        ),
    ] = None,
    output: options.Output = None,
    window: Annotated[
        float, typer.Option(metavar="S", show_default="3", help="Length of a window, which gets one answer.")
    ] = 3.0,
    hop: Annotated[
        float, typer.Option(metavar="S", show_default="1", help="Seconds from window to window.")
    ] = 1.0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", show_default=False, help="Draw the segments over the waveform."),
    ] = None,
    *,
    asked: options.Answering,
    jobs: options.Jobs = None,
    settings: options.Settings,
) -> None:
    """Show the emotion over time in each RECORDING: segments of speech, each with a label, and their shares.

    Exit codes and the order of the records are those of predict.
    """
    options.check_output("--plot", plot, ".png")
    output, chosen = outputs.choose(format_, output, TimelineFormat)
    single = plot is not None or chosen in _SINGLE
    if single and asked.channel is Channel.each:
        raise ConfigError(
            "--plot and the formats srt and audacity are of one voice, --channel each is of every one",
            "Give --channel left, then --channel right",
        )
    found = inputs.Inputs(recordings or [], files_from)
    if single and (plot is not None or output is None or not outputs.is_folder(output)):
        found.require_one()
    config = settings.config(asked, jobs=jobs)
    predictor = open_predictor(asked, config)
    from speechemo_cli.inference import plots
    from speechemo_cli.inference.timeline import timelines

    follow = partial(timelines, predictor, window_s=window, hop_s=hop)
    writer = WRITERS[chosen](Style.of(predictor)._replace(command="timeline"))
    read = [*files_of(predictor), *(recordings or ()), files_from, settings.config_file]
    protect({"--plot": [plot], "--output": [Path(output) if output else None]}, read)
    with outputs.sink(output, chosen, writer, protect=read) as sink:
        for recording in found:
            sink.reserve(recording)
            protect({"--plot": [plot]}, [recording.path])
            items = _follow(follow, recording)
            for item in items:
                if plot and not isinstance(item, ClipError):
                    plots.draw_timeline(item, plot)
                    terminal.note(f"timeline: {display_name(plot)}")
            sink.write(recording, items)
        sink.close()
    terminal.exit_for(sink.failed + found.unreadable, sink.n + found.unreadable)


def _follow(follow: Callable[..., Iterable[Timeline]], recording: inputs.Input) -> list[Timeline | ClipError]:
    """Return the timeline of each channel, up to one that cannot be read."""
    items: list[Timeline | ClipError] = []
    with terminal.progress("following", "s") as update:
        try:
            followed = follow(_on_disk(recording), on_progress=update)
            items.extend(replace(one, path=recording.path) for one in followed)
        except AudioError as error:
            items.append(ClipError(recording.path, str(error)))
    return items


def _on_disk(clip: inputs.Input) -> str:
    """Return where a recording can be read twice: stdin goes into a file first."""
    if clip.path != inputs.STDIN:
        return clip.path
    import shutil

    held = scratch_folder() / "stdin"
    with held.open("wb") as file:
        shutil.copyfileobj(inputs.stdin(), file)
    return str(held)


class _Csv(Writer):
    """One line a segment, with seconds to the millisecond and probabilities to six places.

    A recording without an answer is told of on stderr alone.
    """

    def begin(self) -> str:
        self._begun = False
        return ""

    def write(self, item: Any) -> str:
        if isinstance(item, ClipError):
            return ""
        head = ["path", "channel", "start_s", "end_s", "label", "confidence", "speech_share", *item.labels]
        rows = [
            [
                *(item.path, item.channel or "", _exact(one.start_s), _exact(one.end_s), one.label),
                *(round(share, 6) for share in (one.confidence, one.speech_share)),
                *(round(one.probabilities[label], 6) for label in item.labels),
            ]
            for one in item.segments
        ]
        lines = map(csv_line, rows if self._begun else [head, *rows])
        self._begun = True
        return "".join(lines)


def _text(of: Callable[[Timeline], str]) -> type[Writer]:
    """Make a writer of a format that is one text a recording."""

    class Text(Writer):
        def write(self, item: Any) -> str:
            return "" if isinstance(item, ClipError) else of(item)

    return Text


def _table(item: Timeline) -> str:
    """For people: the segments with their confidence, and bars for the shares below."""
    segments = [
        [f"{_clock(one.start_s)} - {_clock(one.end_s)}", one.label, f"{one.confidence:.0%}"]
        for one in item.segments
    ]
    block = "█" if terminal.draws_blocks() else "#"
    shares = [
        [label, f"{part['speech_s']:.1f} s", f"{share:.0%}", block * round(_RIBBON * share)]
        for label, part in sorted(item.summary.items(), key=lambda one: -one[1]["share"])
        if (share := part["share"]) > 0
    ]
    parts = [
        f"{name(item)}\n{terminal.table(['time', 'label', 'conf.'], segments)}\n",
        *(f"warning: {warning}\n" for warning in item.warnings),
        "\n" + terminal.table(["of the speech", "", "", ""], shares) + "\n" if shares else "",
    ]
    return "".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def to_srt(timeline: Timeline) -> str:
    """Write subtitles (SubRip) that show the label and the confidence; empty where nobody speaks."""
    cues = [
        f"{number}\n{_srt_clock(one.start_s)} --> {_srt_clock(one.end_s)}\n"
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


def _exact(seconds: float) -> float:
    # By way of whole milliseconds, so that all formats round a time to the same side.
    return round(seconds * 1000) / 1000


def _srt_clock(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds, as SubRip has them."""
    rest, ms = divmod(round(seconds * 1000), 1000)
    minutes, s = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{s:02d},{ms:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _one_word(text: str) -> str:
    return re.sub(r"\s+", "_", text.strip()) or "-"


WRITERS: dict[str, type[Writer]] = {
    "table": _text(_table),
    "json": answers.WRITERS["json"],
    "jsonl": answers.WRITERS["jsonl"],
    "csv": _Csv,
    "srt": _text(to_srt),
    "audacity": _text(to_audacity),
    "rttm": _text(to_rttm),
}
