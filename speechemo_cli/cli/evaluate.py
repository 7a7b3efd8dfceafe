"""`speechemo evaluate`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from speechemo_cli.cli import options, render
from speechemo_cli.cli.extract import exit_for, say_corpus
from speechemo_cli.errors import ConfigError
from speechemo_cli.evaluation.wording import TITLES, measure, percent
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.evaluation.holdout import ModelResult
    from speechemo_cli.evaluation.metrics import Scores
    from speechemo_cli.evaluation.protocols import ProtocolResult


def run(
    data: options.Data = None,
    model: options.Model = None,
    version: Annotated[
        options.Version | None, typer.Option(help="Train and score this version by a protocol instead.")
    ] = None,
    protocol: Annotated[
        options.Protocol | None,
        typer.Option(show_default="speaker-5fold", help="With --version: how clips are divided."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", show_default="the version's own", help="With --version.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the confusion matrix into this file.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="With --version: write every out-of-fold answer into this file."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="With --version: write a page about the results.")
    ] = None,
    calibrate: options.Calibrate = None,
    seed: options.Seed = None,
    store: options.Store = None,
    jobs: options.Jobs = None,
    song: options.Song = None,
    strict: options.Strict = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Score a model file on the clips in DATA, or a version of the network by a protocol.

    A model file is scored apart on the clips it was trained on, on other clips of the same speakers and
    on speakers it never heard. With --version, networks are trained and tested fold by fold.
    """
    render.set_quiet(quiet)
    if model and version:
        raise ConfigError(
            "--model and --version were both given", "--model scores a file, --version trains anew"
        )
    if version is None and (protocol or epochs or predictions or report):
        raise ConfigError(
            "--protocol, --epochs, --predictions and --report go with --version", "For example --version v2"
        )
    files = _Files(plot, predictions, report)
    files.check()
    config = options.build_config(
        config_file,
        sets,
        data=data,
        store=store,
        jobs=jobs,
        song=song,
        audio__strict=strict,
        seed=seed,
        train__epochs=epochs,
        train__calibrate=calibrate,
    )
    if version:
        chosen = (protocol or options.Protocol.speaker_5fold).value
        _by_protocol(version.value, chosen, config, files, format_)
    else:
        _model_file(model, config, plot, format_)


class _Files(NamedTuple):
    """Where pictures and answers go, if anywhere."""

    plot: Path | None
    predictions: Path | None
    report: Path | None

    def check(self) -> None:
        """Refuse wrong suffixes and unwritable folders before the work."""
        options.check_output("--plot", self.plot, ".png")
        options.check_output("--predictions", self.predictions, ".csv")
        options.check_output("--report", self.report, ".html")


def _model_file(model: str | None, config: Config, plot: Path | None, format_: options.Format | None) -> None:
    started = time.perf_counter()
    from speechemo_cli.corpus.layouts import find_clips
    from speechemo_cli.errors import DataError
    from speechemo_cli.evaluation import holdout
    from speechemo_cli.features import dataset
    from speechemo_cli.models import model_file, version_module

    path = model_file.find(model, config.models)
    checked = model_file.check(path)
    metadata = checked.metadata
    corpus = find_clips(config.data, song=config.song)
    say_corpus(config.data, corpus)
    render.note(
        f"model: {model_file.shown(path)}"
        f" ({metadata.version}, {metadata.epochs} epochs, seed {metadata.seed})"
    )
    unknown = holdout.unknown_labels(corpus.clips, metadata)
    if unknown:
        raise DataError(
            f"{display_name(config.data)} has labels the model does not know: {', '.join(unknown)}",
            f"It answers {', '.join(metadata.labels)}",
        )
    with render.progress("extracting", "clips") as update:
        clips = dataset.load(
            corpus.clips,
            metadata.adopt(config),
            metadata.feature_set,
            metadata.labels,
            version_module(metadata.version).prepare,
            update,
        )
    render.say_extraction(clips.extraction)
    result = holdout.score_model(checked.load(), metadata, clips)
    headline = result.unseen or result.trained_on
    assert headline is not None
    if plot:
        _draw(headline, metadata.labels, f"{model_file.shown(path)} on {headline.n} clips", plot)
    if options.is_table(format_):
        render.emit(_model_table(result, headline))
    else:
        parts = ("trained_on", "seen_speakers", "new_speakers", "unseen")
        render.emit_json(
            "evaluate",
            {
                "version": metadata.version,
                "model": model_file.shown(path),
                "labels": list(metadata.labels),
                "n_clips": len(clips.examples),
                "n_trained_on": result.trained_on.n if result.trained_on else 0,
                "scored": "unseen" if result.unseen else "trained_on",
                **_scores(headline),
                **{name: _scores(getattr(result, name)) for name in parts},
                "failed": [asdict(failure) for failure in clips.extraction.failed],
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
    exit_for(corpus, clips.extraction)


def _model_table(result: ModelResult, headline: Scores) -> str:
    parts = {
        "trained on": result.trained_on,
        "known voices, other clips": result.seen_speakers,
        "new voices": result.new_speakers,
    }
    rows = [
        [name, str(s.n), percent(s.accuracy), percent(s.uar), percent(s.macro_f1)]
        for name, s in parts.items()
        if s is not None
    ]
    text = render.table(["", "clips", "accuracy", "UAR", "macro-F1"], rows)
    if result.unseen is None:
        words = "The model was trained on every one of these clips: this shows its memory, not its skill."
    else:
        trained_on = result.trained_on.n if result.trained_on else 0
        words = (
            f"Below: the {headline.n} clips it was not trained on. It was trained on {trained_on} of these."
        )
    return "\n".join(
        [text, words, "", render.per_class_table({"scored": headline}), render.confusion_table(headline)]
    )


def _by_protocol(
    version: str, protocol: str, config: Config, files: _Files, format_: options.Format | None
) -> None:
    started = time.perf_counter()
    from speechemo_cli.corpus.layouts import find_clips
    from speechemo_cli.evaluation import predictions, protocols, report
    from speechemo_cli.features import dataset
    from speechemo_cli.models import version_module

    corpus = find_clips(config.data, song=config.song)
    say_corpus(config.data, corpus)
    preset = protocols.preset_of(version, config)
    prepare = version_module(version).prepare
    with render.progress("extracting", "clips") as update:
        clips = dataset.load(corpus.clips, config, preset.feature_set, prepare=prepare, on_progress=update)
    render.say_extraction(clips.extraction)
    with render.progress("training", "epochs") as update:
        result = protocols.run_protocol(
            version, protocol, clips, config, lambda stage, done, total, _: update(done, total, stage=stage)
        )
    if preset.calibrate and not result.protocol.shares_speakers and not result.calibrated:
        render.say_uncalibrated()
    if files.plot:
        title = f"{version}, {protocol}, {result.pooled.n} answers"
        _draw(result.pooled, result.labels, title, files.plot)
    if files.predictions:
        predictions.write(result, files.predictions)
        render.note(f"predictions: {display_name(files.predictions)}")
    if files.report:
        report.write_report(result, files.report)
        render.note(f"report: {display_name(files.report)}")
    if options.is_table(format_):
        render.emit(_protocol_table(result))
    else:
        render.emit_json(
            "evaluate",
            {
                **result.to_dict(),
                "failed": [asdict(failure) for failure in clips.extraction.failed],
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
    exit_for(corpus, clips.extraction)


def _protocol_table(result: ProtocolResult) -> str:
    rows = [
        [
            fold.name,
            str(fold.scores.n),
            percent(fold.scores.accuracy),
            percent(fold.scores.uar),
            " ".join(fold.test_speakers),
        ]
        for fold in result.folds
    ]
    summary = []
    for metric, name in TITLES.items():
        spread = result.spread(metric)
        values = (spread["mean"], spread["sd"], spread["pooled"], *spread["ci95"])
        *numbers, low, high = (measure(metric, value) for value in values)
        summary.append([name, *numbers, f"{low} to {high}"])
    slices = [
        [name, value, str(scores.n), percent(scores.accuracy), percent(scores.uar)]
        for name, parts in result.slices.items()
        if name != "speaker"
        for value, scores in parts.items()
    ]
    title = f"{result.version}, {result.protocol.name}"
    return "\n".join(
        [
            render.table(["fold", "clips", "accuracy", "UAR", "test speakers"], rows),
            render.table([title, "mean of folds", "sd of folds", "pooled", "95 % interval"], summary),
            f"In this protocol {result.protocol.meaning}.{_correction(result)}",
            "",
            render.per_class_table({"all folds": result.pooled}),
            render.confusion_table(result.pooled),
            *([render.table(["slice", "", "clips", "accuracy", "UAR"], slices)] if slices else []),
        ]
    )


def _correction(result: ProtocolResult) -> str:
    if not result.calibrated:
        return ""
    temperatures = ", ".join(f"{fold.temperature:.2f}" for fold in result.folds)
    return f" Confidences are corrected by temperatures from the training speakers: {temperatures}."


def _scores(scores: Scores | None) -> Any:
    return scores.to_dict() if scores else None


def _draw(scores: Scores, labels: tuple[str, ...], title: str, path: Path) -> None:
    from speechemo_cli.evaluation import plots

    plots.confusion(
        scores.confusion,
        labels,
        f"{title}\naccuracy {percent(scores.accuracy)}, UAR {percent(scores.uar)}",
        path,
    )
    render.note(f"confusion matrix: {display_name(path)}")
