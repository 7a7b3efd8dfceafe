"""`speechemo evaluate`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from speechemo_cli.choices import DocumentFormat, Protocol, Version
from speechemo_cli.cli import corpora, options, score_tables, terminal
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name, require_writable
from speechemo_cli.formatting import GROUP_TITLES, GROUPS, MODEL_GROUP_TITLES, TRAINED, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Collection
    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.evaluation.protocols import OnEpoch
    from speechemo_cli.evaluation.results import Answers, ProtocolResult
    from speechemo_cli.features.extraction import Extraction


def run(
    data: options.Data = None,
    model: options.Model = None,
    version: Annotated[
        Version | None, typer.Option(help="Train and score this version by a protocol instead.")
    ] = None,
    protocol: Annotated[
        Protocol | None,
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
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=100, help="Train with N seeds, from --seed on; tells mean and range."
        ),
    ] = 1,
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

    A model file is scored separately on the clips it was trained on, on other clips of the same speakers and
    on unseen speakers. With --version, networks are trained and tested fold by fold. With --train and
    --test, one is trained on some corpora and tested on others (--train A --train B --test C).
    """
    terminal.set_quiet(quiet)
    between = _Between(train or [], test or [])
    between.check(data, model, protocol)
    if model and version:
        raise ConfigError(
            "--model and --version were both given", "--model scores a file, --version trains anew"
        )
    trains = version is not None or between.train
    if not trains and (protocol or epochs or predictions or report or seeds > 1):
        raise ConfigError(
            "--protocol, --epochs, --predictions, --report and --seeds go with --version",
            "For example --version v2",
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
        _between_corpora((version or Version.v2).value, between, config, files, format_, seeds)
    elif version:
        chosen = (protocol or Protocol.speaker_5fold).value
        _by_protocol(version.value, chosen, config, files, format_, seeds, with_conditions=conditions)
    else:
        _model_file(model, config, files, format_, with_conditions=conditions)


class _Between(NamedTuple):
    """What to train on and what to test on, where these are different corpora."""

    train: list[str]
    test: list[str]

    def check(self, data: list[str] | None, model: str | None, protocol: Protocol | None) -> None:
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

    def protection(self, *models: Path) -> dict[str, Any]:
        """Return the outputs, and what is read besides the clips, as `corpora.load_data` takes them."""
        outputs = {"--plot": [self.plot], "--predictions": [self.predictions], "--report": [self.report]}
        return {"outputs": outputs, "read": [*models, self.config]}


def _model_file(
    model: str | None,
    config: Config,
    files: _Files,
    format_: DocumentFormat | None,
    *,
    with_conditions: bool,
) -> None:
    started = time.perf_counter()
    from speechemo_cli.evaluation import holdout, results
    from speechemo_cli.features.augment import condition_sets
    from speechemo_cli.models import model_file

    path = model_file.find(model, config.models)
    checked = model_file.check(path)
    metadata = checked.metadata
    terminal.note(
        f"model: {model_file.shown(path)}"
        f" ({metadata.version}, {metadata.epochs} epochs, seed {metadata.seed})"
    )
    others = condition_sets(metadata.feature_set) if with_conditions else ()
    corpus, clips = corpora.load_data(
        metadata.adopt(config),
        metadata.feature_set,
        others,
        metadata.labels,
        **files.protection(path, model_file.litert_path(path)),
    )
    result = holdout.score_model(checked.load(), metadata, clips)
    if files.plot:
        named = {MODEL_GROUP_TITLES[name]: group for name, group in result.groups.items()}
        _draw(named, metadata.labels, model_file.shown(path), files.plot)
    if options.is_table(format_):
        terminal.emit(score_tables.of_model(result))
    else:
        parts = {name: group.summary() for name, group in result.groups.items()}
        headline = next(iter(parts))
        terminal.emit_json(
            "evaluate",
            {
                "version": metadata.version,
                "model": model_file.shown(path),
                "labels": list(metadata.labels),
                "n_clips": len(clips.examples),
                "n_trained_on": parts[TRAINED]["n"] if TRAINED in parts else 0,
                "scored": headline,
                **parts[headline],
                **{name: parts.get(name) for name in GROUPS},
                **results.conditions_to_dict(result.conditions, result.groups[headline].scores),
                "near_copies": _paths(clips.near_copies),
                **_finish(corpus, clips.extraction, started),
            },
        )
    corpora.exit_for(corpus, clips.extraction)


def _by_protocol(
    version: str,
    protocol: str,
    config: Config,
    files: _Files,
    format_: DocumentFormat | None,
    seeds: int,
    *,
    with_conditions: bool,
) -> None:
    started = time.perf_counter()
    from speechemo_cli.corpus.folds import RANDOM_HOLDOUT_DRAWS
    from speechemo_cli.evaluation import protocols
    from speechemo_cli.features.augment import condition_sets

    require_writable(Path(config.runs))
    preset = protocols.preset_of(version, config)
    others = (*preset.others, *(condition_sets(preset.feature_set) if with_conditions else ()))
    corpus, clips = corpora.load_data(config, preset.feature_set, others, **files.protection())
    step = RANDOM_HOLDOUT_DRAWS if protocol == "random-holdout" else 1  # each draw has a seed of its own
    results = _by_seed(seeds, step, config, partial(protocols.run_protocol, version, protocol, clips))
    document = {**results[config.seed].to_dict(), **_finish(corpus, clips.extraction, started)}
    _show(results, preset.calibrate, files, format_, document, list(corpus.parts))
    corpora.exit_for(corpus, clips.extraction)


_Result = TypeVar("_Result")


def _by_seed(
    n: int, step: int, config: Config, train: Callable[[Config, OnEpoch], _Result]
) -> dict[int, _Result]:
    """Train with so many seeds, beginning with the config's; the progress says which runs."""
    with terminal.progress("training", "epochs") as update:

        def one(i: int, seed: int) -> _Result:
            def on_epoch(stage: str, done: int, total: int, _: Any) -> None:
                where = f"seed {seed}, {i + 1} of {n}: {stage}" if n > 1 else stage
                update(i * total + done, n * total, stage=where)

            return train(replace(config, seed=seed), on_epoch)

        return {seed: one(i, seed) for i in range(n) for seed in [config.seed + i * step]}


def _between_corpora(
    version: str,
    between: _Between,
    config: Config,
    files: _Files,
    format_: DocumentFormat | None,
    seeds: int,
) -> None:
    started = time.perf_counter()
    from speechemo_cli.evaluation import holdout, protocols
    from speechemo_cli.features import dataset

    found = corpora.find(config, [*between.train, *between.test], **files.protection())
    require_writable(Path(config.runs))
    preset = protocols.preset_of(version, config)
    with terminal.progress("extracting", "clips") as update:
        clips = found.only(between.train).clips
        train = dataset.load(clips, config, preset.feature_set, others=preset.others, on_progress=update)
        kept, left_out = holdout.split_by_label(found.only(between.test).clips, train.labels)
        test = dataset.load(kept, config, preset.feature_set, train.labels, on_progress=update, beside=train)
    corpora.report_loaded(train, test)
    if left_out:
        counts = display_name(", ".join(f"{label} ({n})" for label, n in left_out.items()))
        terminal.warn(f"left out of the test, as the training has no such label: {counts} clips")
    by_seed = _by_seed(seeds, 1, config, partial(holdout.cross_corpus, version, train, test))
    extraction = replace(train.extraction, failed=[*train.extraction.failed, *test.extraction.failed])
    document = {**by_seed[config.seed].to_dict(), "left_out": left_out, **_finish(found, extraction, started)}
    results = {seed: crossed.result for seed, crossed in by_seed.items()}
    _show(results, preset.calibrate, files, format_, document, list(found.parts))
    corpora.exit_for(found, extraction)


def _finish(found: Collection, extraction: Extraction, started: float) -> dict[str, Any]:
    return {
        **corpora.to_dict(found, extraction),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _show(
    results: dict[int, ProtocolResult],
    calibrate: bool,
    files: _Files,
    format_: DocumentFormat | None,
    document: dict[str, Any],
    data: list[str],
) -> None:
    """Write the files that were asked for, and print the result: of the first seed, and of all."""
    from speechemo_cli.evaluation import predictions, report
    from speechemo_cli.evaluation.results import over_seeds

    result = next(iter(results.values()))
    by_seed = over_seeds(results) if len(results) > 1 else None
    temperatures = [fold.temperature for fold in result.folds if fold.temperature is not None]
    lacking = calibrate and not result.protocol.shares_speakers and not result.calibrated
    score_tables.report_calibration(lacking, temperatures)
    if files.plot:
        named = {GROUP_TITLES[name]: group for name, group in result.groups.items()}
        _draw(named, result.labels, f"{result.version}, {result.protocol.name}", files.plot)
    if files.predictions:
        predictions.write(result, files.predictions)
        terminal.note(f"predictions: {display_name(files.predictions)}")
    if files.report:
        origin = {
            "data": ", ".join(data),
            "command": shlex.join(["speechemo", *sys.argv[1:]]),
            "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        }
        report.write_report(result, files.report, origin, audio=not files.no_audio)
        terminal.note(f"report: {display_name(files.report)}")
    if options.is_table(format_):
        terminal.emit((score_tables.of_seeds(by_seed) if by_seed else "") + score_tables.of_protocol(result))
    else:
        for caution in result.cautions:  # which the table tells, too
            terminal.warn(caution)
        document["near_copies"] = _paths(result.near_copies)
        terminal.emit_json("evaluate", {**document, **({"by_seed": by_seed} if by_seed else {})})


def _paths(pairs: Iterable[tuple[Example, Example]]) -> list[list[str]]:
    return [[one.clip.path, other.clip.path] for one, other in pairs]


def _draw(groups: dict[str, Answers], labels: tuple[str, ...], title: str, path: Path) -> None:
    from speechemo_cli.evaluation import plots

    titles = {
        f"{title}: {name}\n{group.whose}\n"
        f"accuracy {percent(group.scores.accuracy)}, UAR {percent(group.scores.uar)}": group.scores.confusion
        for name, group in groups.items()
    }
    plots.confusion(titles, labels, path)
    terminal.note(f"confusion matrix: {display_name(path)}")
