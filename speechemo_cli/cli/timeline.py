"""`speechemo predict --timeline`: emotion over time in long recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import inputs, render
from speechemo_cli.cli.answers import Writer, csv_line, name
from speechemo_cli.cli.protected import protect
from speechemo_cli.errors import AudioError
from speechemo_cli.files import display_name, scratch_folder
from speechemo_cli.inference.results import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from speechemo_cli.cli.outputs import Sink
    from speechemo_cli.config import Config
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.inference.timeline import Timeline

# Formats that hold one recording a file.
SINGLE = ("srt", "audacity")
_RIBBON = 20


def run(
    predictor: Predictor,
    found: Iterable[inputs.Input],
    sink: Sink,
    config: Config,
    *,
    window_s: float,
    hop_s: float,
    channel: str,
    min_confidence: float,
    plot: Path | None,
) -> tuple[int, int]:
    """Follow the emotion through every recording.

    Parameters
    ----------
    predictor : Predictor
    found : iterable of Input
    sink : Sink
    config : Config
    window_s, hop_s : float
    channel : str
    min_confidence : float
    plot : Path or None
        For one recording.

    Returns
    -------
    failed, done : int
    """
    from speechemo_cli.inference.predictor import Refusal
    from speechemo_cli.inference.timeline import timelines

    failed = done = 0
    for clip in found:
        sink.expect(clip)
        protect({"--plot": [plot]}, [clip.path])
        items: list[Any] = []
        with render.progress("listening", "s") as update:

            def step(seconds: int, total: int | None, stage: str, update: Any = update) -> None:
                update(seconds, total, stage=stage)

            try:
                path = _on_disk(clip)
                found_in = timelines(
                    predictor,
                    path,
                    window_s=window_s,
                    hop_s=hop_s,
                    channel=channel,
                    min_confidence=min_confidence,
                    config=config.audio,
                    on_progress=step,
                )
                items.extend(replace(one, path=clip.path) for one in found_in)
            except AudioError as error:
                items.append(Refusal(clip.path, str(error)))
        done += len(items)
        for item in items:
            if refused(item):
                failed += 1
                render.warn(f"{name(item)}: {item.error}")
            elif plot:
                _draw(item, plot)
        sink.put(clip, items)
    sink.close()
    return failed, done


def _on_disk(clip: inputs.Input) -> str:
    """Return where a recording can be read twice: stdin goes into a file first."""
    if clip.path != inputs.STDIN:
        return clip.path
    import shutil

    held = scratch_folder() / "stdin"
    with held.open("wb") as file:
        shutil.copyfileobj(inputs.stdin(), file)
    return str(held)


def _draw(one: Timeline, path: Path) -> None:
    from speechemo_cli.inference.timeline_plot import draw

    draw(one, path)
    render.note(f"timeline: {display_name(path)}")


class _Jsonl(Writer):
    def write(self, item: Any) -> None:
        self.emit(json.dumps(self.style.record(item)) + "\n")


class _Json(Writer):
    def begin(self) -> None:
        self._records: list[dict[str, Any]] = []

    def write(self, item: Any) -> None:
        self._records.append(self.style.record(item))

    def close(self) -> None:
        self.emit(json.dumps(self.style.document("recordings", self._records), indent=2) + "\n")


class _Csv(Writer):
    """One line a segment; a recording without an answer is told of on stderr alone."""

    def begin(self) -> None:
        self._begun = False

    def write(self, item: Any) -> None:
        from speechemo_cli.inference import timeline_formats

        if refused(item):
            return
        if not self._begun:
            self._begun = True
            self.emit(csv_line(timeline_formats.columns(item)))
        for row in timeline_formats.rows(item):
            self.emit(csv_line(row))


def _text(of: Callable[[Any], Callable[[Timeline], str]]) -> type[Writer]:
    """Make a writer of a format that is one text a recording."""

    class Text(Writer):
        def write(self, item: Any) -> None:
            if not refused(item):
                from speechemo_cli.inference import timeline_formats

                self.emit(of(timeline_formats)(item))

    return Text


class _Table(Writer):
    """For people: the segments with a bar for the confidence, and the shares below."""

    def write(self, item: Any) -> None:
        if refused(item):
            return
        rows = [
            [f"{_clock(one.start_s)} - {_clock(one.end_s)}", one.label, f"{one.confidence:.0%}"]
            for one in item.segments
        ]
        self.emit(f"{name(item)}\n{render.table(['time', 'label', 'conf.'], rows)}\n")
        for warning in item.warnings:
            self.emit(f"warning: {warning}\n")
        spoken = {label: part for label, part in item.summary.items() if part["share"] > 0}
        block = "█" if render.draws_blocks() else "#"
        shares = sorted(spoken.items(), key=lambda one: -one[1]["share"])
        bars = [
            [
                label,
                f"{part['speech_s']:.1f} s",
                f"{part['share']:.0%}",
                block * round(_RIBBON * part["share"]),
            ]
            for label, part in shares
        ]
        if bars:
            self.emit("\n" + render.table(["of the speech", "", "", ""], bars) + "\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


WRITERS: dict[str, type[Writer]] = {
    "table": _Table,
    "json": _Json,
    "jsonl": _Jsonl,
    "csv": _Csv,
    "srt": _text(lambda formats: formats.to_srt),
    "audacity": _text(lambda formats: formats.to_audacity),
    "rttm": _text(lambda formats: formats.to_rttm),
}
