"""`speechemo evaluate`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import asdict, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from speechemo_cli.cli import corpora, options, protected, render, score_tables
from speechemo_cli.cli.protected import files_of
from speechemo_cli.errors import ConfigError
from speechemo_cli.evaluation.wording import percent
from speechemo_cli.files import display_name, require_writable

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.corpus.collection import Collection
    from speechemo_cli.evaluation.metrics import Scores
    from speechemo_cli.evaluation.protocols import ProtocolResult
    from speechemo_cli.features.extraction import Extraction


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
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA", show_default=False, help="Train on this, test on --test; can be given again."
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA", show_default=False, help="With --train: test on this; likewise."),
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
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Embed no sound in --report: it holds the speakers' voices.")
    ] = False,
    conditions: Annotated[
        bool,
        typer.Option(
            "--conditions", help="Also score the same clips louder, noisy, through a telephone, ..."
        ),
    ] = False,
    calibrate: options.Calibrate = None,
    seed: options.Seed = None,
    store: options.Store = None,
    jobs: options.Jobs = None,
    song: options.Song = None,
    label_from: options.LabelFrom = None,
    speaker_from: options.SpeakerFrom = None,
    strict: options.Strict = None,
    format_: options.DocumentFormat = None,
    config_file: options.ConfigFile = None,
    sets: options.Sets = None,
    quiet: options.Quiet = False,
) -> None:
    """Score a model file on the clips in DATA, or a version of the network by a protocol.

    A model file is scored apart on the clips it was trained on, on other clips of the same speakers and
    on unseen speakers. With --version, networks are trained and tested fold by fold. With --train and
    --test, one is trained on some corpora and tested on others (--train A --train B --test C).
    """
    render.set_quiet(quiet)
    between = _Between(train or [], test or [])
    between.check(data, model, protocol)
    if model and version:
        raise ConfigError(
            "--model and --version were both given", "--model scores a file, --version trains anew"
        )
    trains = version is not None or between.train
    if not trains and (protocol or epochs or predictions or report):
        raise ConfigError(
            "--protocol, --epochs, --predictions and --report go with --version", "For example --version v2"
        )
    if conditions and between.train:
        raise ConfigError("--conditions does not go with --train and --test", "Leave it out")
    files = _Files(plot, predictions, report, config_file, no_audio)
    files.check()
    config = options.build_config(
        config_file,
        sets,
        data=data,
        store=store,
        jobs=jobs,
        song=song,
        label_from=label_from,
        speaker_from=speaker_from,
        audio__strict=strict,
        seed=seed,
        train__epochs=epochs,
        train__calibrate=calibrate,
    )
    if between.train:
        _between_corpora((version or options.DEFAULT_VERSION).value, between, config, files, format_)
    elif version:
        chosen = (protocol or options.Protocol.speaker_5fold).value
        _by_protocol(version.value, chosen, config, files, format_, with_conditions=conditions)
    else:
        _model_file(model, config, files, format_, with_conditions=conditions)


class _Between(NamedTuple):
    """What to train on and what to test on, where these are different corpora."""

    train: list[str]
    test: list[str]

    def check(self, data: list[str] | None, model: str | None, protocol: options.Protocol | None) -> None:
        """Refuse one without the other, and what does not go with them."""
        if not self.train and not self.test:
            return
        if not self.train or not self.test:
            raise ConfigError(
                f"--{'train' if self.train else 'test'} was given alone",
                "For example --train data/ravdess --train data/nemo --test data/aesdd",
            )
        for name, given in (("DATA", data), ("--model", model), ("--protocol", protocol)):
            if given:
                raise ConfigError(f"{name} does not go with --train and --test", "Leave it out")
        both = {os.path.realpath(one) for one in self.train} & {os.path.realpath(one) for one in self.test}
        if both:
            raise ConfigError(
                f"{display_name(both.pop())} is both --train and --test",
                "To divide one corpus: --version V --protocol P",
            )


class _Files(NamedTuple):
    """Where pictures and answers go, if anywhere."""

    plot: Path | None
    predictions: Path | None
    report: Path | None
    config: Path | None
    no_audio: bool

    def check(self) -> None:
        """Refuse wrong suffixes and unwritable folders before the work."""
        options.check_output("--plot", self.plot, ".png")
        options.check_output("--predictions", self.predictions, ".csv")
        options.check_output("--report", self.report, ".html")

    def protect(self, corpus: Collection, *models: Path) -> None:
        """Refuse to write over what is read."""
        outputs = {"--plot": [self.plot], "--predictions": [self.predictions], "--report": [self.report]}
        protected.protect(outputs, chain(files_of(corpus), models, [self.config]))


def _model_file(
    model: str | None,
    config: Config,
    files: _Files,
    format_: options.Format | None,
    *,
    with_conditions: bool,
) -> None:
    started = time.perf_counter()
    from speechemo_cli.errors import DataError
    from speechemo_cli.evaluation import conditions, holdout
    from speechemo_cli.features import dataset
    from speechemo_cli.models import litert_file, model_file

    path = model_file.find(model, config.models)
    checked = model_file.check(path)
    metadata = checked.metadata
    corpus = corpora.find(config)
    files.protect(corpus, path, litert_file.beside(path))
    render.note(
        f"model: {model_file.shown(path)}"
        f" ({metadata.version}, {metadata.epochs} epochs, seed {metadata.seed})"
    )
    unknown = holdout.unknown_labels(corpus.clips, metadata)
    if unknown:
        raise DataError(
            f"the clips have labels the model does not know: {', '.join(unknown)}",
            f"It answers {', '.join(metadata.labels)}",
        )
    with render.progress("extracting", "clips") as update:
        clips = dataset.load(
            corpus.clips,
            metadata.adopt(config),
            metadata.feature_set,
            metadata.labels,
            conditions.feature_sets(metadata.feature_set) if with_conditions else (),
            update,
        )
    render.say_extraction(clips.extraction)
    result = holdout.score_model(checked.load(), metadata, clips)
    headline = result.not_trained_on or result.trained_on
    assert headline is not None
    if files.plot:
        _draw(headline, metadata.labels, f"{model_file.shown(path)} on {headline.n} clips", files.plot)
    if options.is_table(format_):
        render.emit(score_tables.of_model(result, headline))
    else:
        parts = ("trained_on", "seen_speakers", "unseen_speakers", "unknown_speakers", "not_trained_on")
        render.emit_json(
            "evaluate",
            {
                "version": metadata.version,
                "model": model_file.shown(path),
                "labels": list(metadata.labels),
                "n_clips": len(clips.examples),
                "n_trained_on": result.trained_on.n if result.trained_on else 0,
                "scored": "not_trained_on" if result.not_trained_on else "trained_on",
                **_scores(headline),
                **{name: _scores(getattr(result, name)) for name in parts},
                **conditions.to_dict(result.conditions, headline),
                **corpora.to_dict(corpus),
                "failed": [asdict(failure) for failure in clips.extraction.failed],
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
    corpora.exit_for(corpus, clips.extraction)


def _by_protocol(
    version: str,
    protocol: str,
    config: Config,
    files: _Files,
    format_: options.Format | None,
    *,
    with_conditions: bool,
) -> None:
    started = time.perf_counter()
    from speechemo_cli.evaluation import conditions, protocols
    from speechemo_cli.features import dataset

    corpus = corpora.find(config)
    files.protect(corpus)
    require_writable(Path(config.runs))
    preset = protocols.preset_of(version, config)
    with render.progress("extracting", "clips") as update:
        others = (*preset.others, *(conditions.feature_sets(preset.feature_set) if with_conditions else ()))
        clips = dataset.load(corpus.clips, config, preset.feature_set, others=others, on_progress=update)
    render.say_extraction(clips.extraction)
    with render.progress("training", "epochs") as update:
        result = protocols.run_protocol(
            version, protocol, clips, config, lambda stage, done, total, _: update(done, total, stage=stage)
        )
    document = {**result.to_dict(), **_finish(corpus, clips.extraction, started)}
    _show(result, preset.calibrate, files, format_, document, list(corpus.parts))
    corpora.exit_for(corpus, clips.extraction)


def _between_corpora(
    version: str, between: _Between, config: Config, files: _Files, format_: options.Format | None
) -> None:
    started = time.perf_counter()
    from speechemo_cli.evaluation import cross_corpus, protocols
    from speechemo_cli.features import dataset

    found = corpora.find(config, [*between.train, *between.test])
    files.protect(found)
    require_writable(Path(config.runs))
    preset = protocols.preset_of(version, config)
    with render.progress("extracting", "clips") as update:
        clips = found.only(between.train).clips
        train = dataset.load(clips, config, preset.feature_set, others=preset.others, on_progress=update)
        kept, left_out = cross_corpus.split_by_label(found.only(between.test).clips, train.labels)
        test = dataset.load(kept, config, preset.feature_set, train.labels, on_progress=update)
    for data in (train, test):
        render.say_extraction(data.extraction)
    if left_out:
        counts = display_name(", ".join(f"{label} ({n})" for label, n in left_out.items()))
        render.warn(f"left out of the test, as the training has no such label: {counts} clips")
    with render.progress("training", "epochs") as update:
        crossed = cross_corpus.cross_corpus(
            version, train, test, config, lambda stage, done, total, _: update(done, total, stage=stage)
        )
    extraction = replace(train.extraction, failed=[*train.extraction.failed, *test.extraction.failed])
    document = {**crossed.to_dict(), "left_out": left_out, **_finish(found, extraction, started)}
    _show(crossed.result, preset.calibrate, files, format_, document, list(found.parts))
    corpora.exit_for(found, extraction)


def _finish(found: Collection, extraction: Extraction, started: float) -> dict[str, Any]:
    return {
        **corpora.to_dict(found),
        "failed": [asdict(failure) for failure in extraction.failed],
        "seconds": round(time.perf_counter() - started, 3),
    }


def _show(
    result: ProtocolResult,
    calibrate: bool,
    files: _Files,
    format_: options.Format | None,
    document: dict[str, Any],
    data: list[str],
) -> None:
    """Write the files that were asked for, and print the result."""
    from speechemo_cli.evaluation import calibration, predictions, report

    if calibrate and not result.protocol.shares_speakers and not result.calibrated:
        render.say_uncalibrated()
    temperatures = [fold.temperature for fold in result.folds if fold.temperature is not None]
    for temperature in filter(calibration.at_bound, temperatures):
        render.warn_at_bound(temperature)
    if files.plot:
        title = f"{result.version}, {result.protocol.name}, {result.pooled.n} answers"
        _draw(result.pooled, result.labels, title, files.plot)
    if files.predictions:
        predictions.write(result, files.predictions)
        render.note(f"predictions: {display_name(files.predictions)}")
    if files.report:
        origin = {
            "data": ", ".join(data),
            "command": shlex.join(["speechemo", *sys.argv[1:]]),
            "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        }
        report.write_report(result, files.report, origin, audio=not files.no_audio)
        render.note(f"report: {display_name(files.report)}")
    if options.is_table(format_):
        render.emit(score_tables.of_protocol(result))
    else:
        render.emit_json("evaluate", document)


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
