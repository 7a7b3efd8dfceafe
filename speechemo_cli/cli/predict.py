"""`speechemo predict`, and the opening of a model as `timeline` and `stream` do it too."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechemo_cli.choices import AnswerFormat, Backend, Channel
from speechemo_cli.cli import inputs, options, outputs, terminal
from speechemo_cli.cli.answers import RESUMABLE, WRITERS
from speechemo_cli.errors import AudioError, ConfigError
from speechemo_cli.files import display_name
from speechemo_cli.formatting import percent
from speechemo_cli.inference import Style

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from speechemo_cli.cli.answers import ByChannel
    from speechemo_cli.config import AudioConfig, Config
    from speechemo_cli.inference.predictor import ClipSource, Items, Predictor
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
    files_from: options.FilesFrom = None,
    format_: Annotated[
        AnswerFormat | None,
        typer.Option(
            "--format", "-f", show_default="table; jsonl in a pipe", help="How to print the answers."
        ),
    ] = None,
    output: options.Output = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the answers in --output that this model gave for the same clips."
        ),
    ] = False,
    top: options.Top = None,
    *,
    asked: options.Answering,
    jobs: options.Jobs = None,
    backend: options.BackendOption = Backend.loky,
    scheduler: options.Scheduler = None,
    settings: options.Settings,
) -> None:
    """Recognise the emotion in each CLIP: label, confidence, and the probability of every label.

    Answers come in the order of the clips. A clip that cannot be read gets an error record, the others
    their answer, and the exit code is 3 (6 if there is no answer at all). For recordings of any length:
    speechemo timeline.
    """
    output, chosen = outputs.choose(format_, output, AnswerFormat)
    if resume and (output is None or chosen not in RESUMABLE):
        raise ConfigError(
            "--resume needs answers it can read again", "Give --output and --format jsonl or csv"
        )
    found = inputs.Inputs(clips or [], files_from)
    config = settings.config(asked, jobs=jobs)
    # A file that crashes a decoder costs no other.
    predictor = open_predictor(asked, config, isolate=not found.is_one_file())
    writer = WRITERS[chosen](Style.of(predictor, top))
    read = [*files_of(predictor), *(clips or ()), files_from, settings.config_file]
    with (
        options.workers_of(backend, scheduler),
        outputs.sink(output, chosen, writer, resume=resume, protect=read) as sink,
    ):
        total = found.count() if terminal.shows_progress() else None
        answer = predictor.predict_groups
        if scheduler is not None:
            from speechemo_cli.inference import cluster

            answer = partial(cluster.predict_groups, predictor, asked.runtime)
        ahead, in_order = tee(_look(found, sink, predictor))  # the predictor takes them by the batch
        answers = answer(source for _, source, kept in ahead if not kept)
        with terminal.progress("predicting", "clips") as update:
            for done, (clip, _, kept) in enumerate(in_order, start=1):
                sink.write(clip, kept or next(answers))
                update(done, total)
        next(answers, None)  # ends its processes
        sink.close()
    terminal.exit_for(sink.failed + found.unreadable, sink.n + found.unreadable)


def open_predictor(asked: options.Answering, config: Config, *, isolate: bool = False) -> Predictor:
    """Open what --model names, and say which model answers, what that is worth, and what is odd about it.

    Labels are one line of CSV: one that holds a comma stands in quotes.
    """
    import csv

    from speechemo_cli.inference.predictor import Predictor
    from speechemo_cli.models import model_file

    path = model_file.find(asked.model, config.models)
    labels = asked.labels and [
        label.strip() for label in next(csv.reader([asked.labels], skipinitialspace=True))
    ]
    predictor = Predictor.open(
        path,
        config,
        runtime=asked.runtime,
        labels=labels,
        channel=asked.channel,
        min_confidence=asked.min_confidence,
        isolate=isolate,
    )
    terminal.note(f"model: {model_file.shown(path)} ({worth(predictor.metadata)})")
    if predictor.slow_because:
        terminal.note(f"{predictor.slow_because}: running it with Keras, which takes longer to start")
    if asked.min_confidence and predictor.metadata.temperature is None:
        terminal.warn(
            "this model's confidences were never corrected on unseen speakers, so --min-confidence may keep"
            " too much. Train it with --calibrate"
        )
    return predictor


def files_of(predictor: Predictor) -> list[Path]:
    """Return the model file and the LiteRT file beside it."""
    from speechemo_cli.models import model_file

    path = Path(predictor.path)
    return [path, model_file.litert_path(path)]


def _look(
    found: Iterable[inputs.Input], sink: outputs.Sink, predictor: Predictor
) -> Iterator[tuple[inputs.Input, ClipSource, Items]]:
    """Give each clip, what is read for it, and the answers of a previous run, which it keeps."""
    for clip in found:
        previous = sink.reserve(clip)
        source = (clip.path, _on_stdin()) if clip.path == inputs.STDIN else clip.path
        yield clip, source, unchanged(source, previous, predictor.channel, predictor.config.audio)


def unchanged(
    source: ClipSource, previous: Mapping[str, ByChannel], channel: str, config: AudioConfig
) -> Items:
    """Return the previous answers for a clip, if its content is the same and no channel lacks one.

    `previous` is by SHA-256. Nothing is returned where the clip has to be answered, or cannot be read, which
    the predictor tells.
    """
    if not previous:
        return []
    from speechemo_cli.audio import reader

    try:
        with reader.clip_errors():
            content = reader.read_bytes(source) if isinstance(source, str) else source[1]
            answers = previous.get(hashlib.sha256(content).hexdigest(), {})
            if channel != Channel.each or not answers:
                return list(answers.values())
            names = reader.channel_names(content, config)
    except AudioError:
        return []
    return [answers[name] for name in names] if answers.keys() == set(names) else []


def _on_stdin() -> bytes:
    """Read a file's content from stdin, and of what has no end as much as shows that it is too much."""
    from speechemo_cli.audio.reader import LARGEST_BYTES

    chunks = iter(partial(inputs.stdin().read, _CHUNK_BYTES), b"")
    return b"".join(islice(chunks, LARGEST_BYTES // _CHUNK_BYTES + 1))


def worth(metadata: ModelMetadata) -> str:
    """Say what the model's answers are worth, and on whom, from its own results."""
    test = metadata.results.get("test", {})
    new, seen = test.get("new_speakers"), test.get("seen_speakers")
    left_out = metadata.results.get("cross_validated")
    if new:
        words = f"right {percent(new['accuracy'])} of the time on unseen speakers"
    elif left_out:
        who = ", ".join(left_out.get("corpora", {}).get("tested", ())) or "its corpus"
        share = percent(left_out["accuracy"]["pooled"])
        words = f"right {share} of the time on unseen speakers of {display_name(who)}"
    elif seen:
        words = f"right {percent(seen['accuracy'])} of the time on speakers it was trained on, less on others"
    else:
        words = "never measured on clips it was not trained on"
    others = [one["uar"] for one in metadata.results.get("other_corpora", {}).values()]
    if others:
        low, high = (f"{100 * share:.0f}" for share in (min(others), max(others)))
        words += f"; on corpora it was not trained on, {f'{low}-{high}' if low != high else low} % (UAR)"
    elif new or left_out:
        words += "; never measured on other corpora, expect less there"
    return f"{metadata.version}; {words}"
