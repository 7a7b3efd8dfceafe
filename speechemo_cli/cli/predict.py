"""`speechemo predict`."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechemo_cli.cli import answers, earlier, inputs, options, outputs, protected, render, stream, timeline
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name
from speechemo_cli.formatting import percent
from speechemo_cli.inference.results import Style, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from speechemo_cli.inference.predictor import Answer, Predictor, Refusal
    from speechemo_cli.models.metadata import ModelMetadata

# Of stdin, at a time.
_CHUNK_BYTES = 2**20


def run(
    clips: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLIP]...",
            show_default=False,
            help="Audio files, folders of them, or - for audio on stdin.",
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="FILE",
            show_default=False,
            help="List of clips, one a line or separated by NUL; - for stdin.",
        ),
    ] = None,
    stream_: Annotated[
        bool,
        typer.Option(
            "--stream", help="Answer each line on stdin, a path or a JSON object, at once by a line of JSON."
        ),
    ] = False,
    model: options.Model = None,
    runtime: Annotated[
        options.Runtime, typer.Option(help="What runs the network: LiteRT, or Keras.")
    ] = options.Runtime.auto,
    format_: Annotated[
        options.PredictFormat | None,
        typer.Option(
            "--format", "-f", show_default="table; jsonl in a pipe", help="How to print the answers."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            show_default="stdout",
            help="One file for all answers, or a folder for one file a clip.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the answers in --output that this model gave for the same clips."
        ),
    ] = False,
    channel: Annotated[
        options.Channel, typer.Option(help="Which channel to listen to; each answers for every one.")
    ] = options.Channel.mix,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL,...",
            show_default="all",
            help="Choose among these labels only.",
            autocompletion=options.complete_labels,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default="all", help="Write the N most probable labels only."),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            show_default=False,
            help="Answer `uncertain` below this confidence.",
        ),
    ] = 0.0,
    timeline_: Annotated[
        bool, typer.Option("--timeline", help="Follow the emotion through long recordings, in segments.")
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="S", show_default="3", help="With --timeline: seconds that are listened to at once."
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(metavar="S", show_default="1", help="With --timeline: seconds from window to window."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", show_default=False, help="With --timeline: draw it over the waveform."
        ),
    ] = None,
    track: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="the one with speech",
            help="Which sound track of a file with several.",
        ),
    ] = None,
    raw: Annotated[
        int | None,
        typer.Option(
            metavar="RATE",
            min=8000,
            max=384000,
            show_default=False,
            help="Take files for headerless PCM: 16-bit mono samples at RATE Hz.",
        ),
    ] = None,
    strict: options.Strict = None,
    jobs: options.Jobs = None,
    backend: options.BackendOption = options.Backend.loky,
    scheduler: options.Scheduler = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Tell the emotion in each CLIP: label, confidence, and the probability of every label.

    Answers come in the order of the clips. A clip that cannot be read gets an error record, the others
    their answer, and the exit code is 3 (6 if there is no answer at all). With --timeline a recording of
    any length is cut into segments, each with a label.
    """
    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.models import litert_file, model_file

    render.set_quiet(quiet)
    clips = clips or []
    _check(timeline_, stream_, format_, top, resume, min_confidence, (window, hop, plot))
    options.check_output("--plot", plot, ".png")
    if stream_ and (clips or files_from or output or channel is options.Channel.each):
        raise ConfigError(
            "--stream reads its clips from stdin and answers each by one line on stdout",
            "Leave out CLIP, --files-from, --output and --channel each",
        )
    output = outputs.named(output)
    chosen = _format(format_, output, stream_)
    if not timeline_ and chosen not in answers.WRITERS:
        raise ConfigError(
            f"--output {display_name(output or '')} is for times in a recording", "Add --timeline"
        )
    if resume and (output is None or chosen not in earlier.RESUMABLE):
        raise ConfigError(
            "--resume needs answers it can read again", "Give --output and --format jsonl or csv"
        )
    of_one = plot is not None or chosen in timeline.SINGLE
    if of_one and channel is options.Channel.each:
        raise ConfigError(
            "--plot and the formats srt and audacity are of one voice, --channel each is of every one",
            "Give --channel left, then --channel right",
        )
    if scheduler is not None and (stream_ or timeline_):
        raise ConfigError(
            "--stream and --timeline answer here, --scheduler elsewhere", "Leave out --scheduler"
        )
    found = None if stream_ else inputs.Inputs(clips, files_from)
    if found and of_one and (plot is not None or output is None or not outputs.is_folder(output)):
        found.require_one()
    config = options.build_config(
        config_file, sets, jobs=jobs, audio__strict=strict, audio__track=track, audio__raw_sr=raw
    )
    path = model_file.find(model, config.models)
    chosen_how: dict[str, Any] = {
        "runtime": runtime.value,
        "min_confidence": min_confidence,
        "labels": tuple(_named_labels(labels)) if labels is not None else None,
        "channel": channel.value,
    }
    predictor = Predictor.open(
        path,
        config,
        **chosen_how,
        isolate=found is None or not found.is_one_file(),  # a file that crashes a decoder costs no other
    )
    _say(predictor, path, min_confidence)
    style = Style.of(predictor, config, min_confidence=min_confidence, channel=channel.value, top=top)
    if found is None:
        stream.run(predictor, style)
        return
    named = (path, litert_file.beside(path), *clips, files_from, config_file)
    read = [file for file in named if file is not None]
    protected.protect({"--plot": [plot], "--output": [Path(output) if output else None]}, read)
    if timeline_:
        with outputs.sink(
            output, chosen, style, resume=False, writers=timeline.WRITERS, protect=read
        ) as sink:
            failed, n = timeline.run(
                predictor,
                found,
                sink,
                config,
                window_s=3.0 if window is None else window,
                hop_s=1.0 if hop is None else hop,
                channel=channel.value,
                min_confidence=min_confidence,
                plot=plot,
            )
    else:
        with (
            options.workers_of(backend, scheduler),
            outputs.sink(output, chosen, style, resume=resume, protect=read) as sink,
        ):
            total = found.count() if render.shows_progress() else None
            answer = predictor.predict_groups
            if scheduler is not None:
                from speechemo_cli.inference import elsewhere

                answer = partial(elsewhere.predict_groups, elsewhere.Model.of(path, config, **chosen_how))
            failed, n = _answer_all(answer, found, sink, total)
    render.exit_for(failed + found.unreadable, n + found.unreadable)


def _check(
    follows: bool,
    streams: bool,
    format_: options.PredictFormat | None,
    top: int | None,
    resume: bool,
    min_confidence: float,
    only_then: tuple[object, ...],
) -> None:
    """Refuse options that do not go with --timeline, or go with it alone, and no number."""
    if math.isnan(min_confidence):  # which no limit stops
        raise ConfigError("--min-confidence is nan, expected a number from 0 to 1")
    if follows and (streams or resume or top is not None or format_ is options.PredictFormat.label):
        raise ConfigError(
            "--stream, --resume, --top and --format label are for clips, --timeline is for recordings",
            "Leave out one or the other",
        )
    if not follows and any(value is not None for value in only_then):
        raise ConfigError("--window, --hop and --plot go with --timeline", "Add --timeline")
    if not follows and format_ is not None and format_.value not in answers.WRITERS:
        raise ConfigError(f"--format {format_} is for times in a recording", "Add --timeline")


def _format(asked: options.PredictFormat | None, output: str | None, streams: bool) -> str:
    """Choose the format: as asked, as the name of the output says, or as fits who reads."""
    if streams and asked not in (None, options.PredictFormat.jsonl):
        raise ConfigError(f"--stream answers by lines of JSON, not as {asked}", "Leave out --format")
    if asked is not None:
        return asked.value
    if output is not None and not outputs.is_folder(output):
        suffix = Path(output).suffix
        if suffix not in outputs.SUFFIXES:
            known = ", ".join(outputs.SUFFIXES)
            raise ConfigError(
                f"--output is {display_name(output)}, expected a name that ends in {known}, or a folder",
                "Or say the format with --format",
            )
        return outputs.SUFFIXES[suffix]
    if output is not None:
        return "jsonl"
    return "table" if render.on_terminal() and not streams else "jsonl"


def _named_labels(labels: str) -> list[str]:
    """Read labels as one line of CSV: one that holds a comma stands in quotes."""
    import csv

    return [label.strip() for label in next(csv.reader([labels], skipinitialspace=True), [])]


def _answer_all(
    answer: Callable[..., Iterator[list[Answer | Refusal]]],
    found: Iterable[inputs.Input],
    sink: outputs.Sink,
    total: int | None,
) -> tuple[int, int]:
    """Answer every clip; return how many records are no answers, and how many there are."""
    waiting: deque[inputs.Input] = deque()

    def clips() -> Iterator[str | tuple[str, bytes]]:
        for clip in found:
            sink.expect(clip)
            waiting.append(clip)
            yield (clip.path, _on_stdin()) if clip.path == inputs.STDIN else clip.path

    failed = n = done = 0
    with render.progress("listening", "clips") as update:
        for items in answer(clips(), sink.known):
            done += 1
            n += len(items)
            for item in items:
                if refused(item):
                    failed += 1
                    render.warn(f"{answers.name(item)}: {item.error}")
            sink.put(waiting.popleft(), items)
            update(done, total)
    sink.close()
    return failed, n


def _on_stdin() -> bytes:
    """Read a file's content from stdin, and of what has no end as much as shows that it is too much."""
    from speechemo_cli.audio.reader import LARGEST_BYTES

    chunks: list[bytes] = []
    left = LARGEST_BYTES + 1
    while chunk := inputs.stdin().read(min(left, _CHUNK_BYTES)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _say(predictor: Predictor, path: Path, min_confidence: float) -> None:
    """Tell which model answers, what its answers are worth, and what there is to know of it."""
    from speechemo_cli.models import model_file

    render.note(f"model: {model_file.shown(path)} ({worth(predictor.metadata)})")
    if predictor.slow_because:
        render.note(f"{predictor.slow_because}: running it with Keras, which takes longer to start")
    if min_confidence and predictor.metadata.temperature is None:
        render.warn(
            "this model's confidences were never corrected on unseen speakers, so --min-confidence may keep"
            " too much. Train it with --calibrate"
        )


def worth(metadata: ModelMetadata) -> str:
    """Say what the model's answers are worth, and on whom, from its own results."""
    test = metadata.results.get("test", {})
    new, seen = test.get("new_speakers"), test.get("seen_speakers")
    left_out = metadata.results.get("cross_validated")
    if new:
        told = f"right {percent(new['accuracy'])} of the time on unseen speakers"
    elif left_out:
        who = ", ".join(left_out.get("corpora", {}).get("tested", ())) or "its corpus"
        share = percent(left_out["accuracy"]["pooled"])
        told = f"right {share} of the time on unseen speakers of {display_name(who)}"
    elif seen:
        told = f"right {percent(seen['accuracy'])} of the time on speakers it was trained on, less on others"
    else:
        told = "never measured on clips it was not trained on"
    others = [one["uar"] for one in metadata.results.get("other_corpora", {}).values()]
    if others:
        low, high = (f"{100 * share:.0f}" for share in (min(others), max(others)))
        told += f"; on corpora it was not trained on, {f'{low}-{high}' if low != high else low} % (UAR)"
    elif new or left_out:
        told += "; never measured on other corpora, expect less there"
    return f"{metadata.version}; {told}"
