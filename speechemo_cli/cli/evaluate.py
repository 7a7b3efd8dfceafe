"""`speechemo evaluate`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from speechemo_cli.choices import DocumentFormat, Protocol, Version
from speechemo_cli.cli import inputs, options, score_tables, terminal
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name, require_writable
from speechemo_cli.formatting import GROUP_TITLES, GROUPS, MODEL_GROUP_TITLES, TRAINED, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Collection
    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.evaluation.protocols import OnEpoch
    from speechemo_cli.evaluation.results import Answers, ProtocolResult
    from speechemo_cli.features.extraction import Extraction


@dataclass(frozen=True)
class Between:
    """What to train on and what to test on, where these are different corpora."""

    train: Annotated[
        list[str] | None, Option(metavar="DATA", help="Train on this, test on --test; can be given again.")
    ] = None
    test: Annotated[
        list[str] | None, Option(metavar="DATA", help="With --train: test on this; can be given again.")
    ] = None

    def check(self, others: Mapping[str, object]) -> None:
        """Refuse one without the other, and what does not go with them."""
        if not self.train and not self.test:
            return
        if not self.train or not self.test:
            raise ConfigError(
                f"--{'train' if self.train else 'test'} was given alone",
                "For example --train data/ravdess --train data/nemo --test data/aesdd",
            )
        for name, given in others.items():
            if given:
                raise ConfigError(f"{name} does not go with --train and --test", "Leave it out")
        both = {os.path.realpath(one) for one in self.train} & {os.path.realpath(one) for one in self.test}
        if both:
            raise ConfigError(
                f"{display_name(both.pop())} is both --train and --test",
                "To divide one corpus: --version V --protocol P",
            )


@dataclass(frozen=True)
class Files:
    """Where pictures and answers go, if anywhere."""

    plot: Annotated[
        Path | None, Option(metavar="FILE.png", help="Draw the confusion matrix into this file.")
    ] = None
    predictions: Annotated[
        Path | None,
        Option(metavar="FILE.csv", help="With --version: write every out-of-fold answer into this file."),
    ] = None
    report: Annotated[
        Path | None, Option(metavar="FILE.html", help="With --version: write a page about the results.")
    ] = None
    no_audio: Annotated[
        bool, Option("--no-audio", help="Embed no sound in --report: it holds the speakers' voices.")
    ] = False

    def checked(self) -> dict[str, list[Path | None]]:
        """Refuse wrong suffixes and unwritable folders before the work; return the files by their options."""
        options.check_output("--plot", self.plot, ".png")
        options.check_output("--predictions", self.predictions, ".csv")
        options.check_output("--report", self.report, ".html")
        return {"--plot": [self.plot], "--predictions": [self.predictions], "--report": [self.report]}


def run(
    model: options.Model = None,
    version: Annotated[
        Version | None, Option(help="Train and score this version by a protocol instead.")
    ] = None,
    protocol: Annotated[
        Protocol | None, Option(show_default="speaker-5fold", help="With --version: how clips are divided.")
    ] = None,
    conditions: Annotated[
        bool, Option("--conditions", help="Also score the same clips louder, noisy, through a telephone, ...")
    ] = False,
    seeds: Annotated[
        int,
        Option(metavar="N", min=1, max=100, help="Train with N seeds, from --seed on; shows mean and range."),
    ] = 1,
    format_: options.DocumentFormat = None,
    *,
    between: Between,
    files: Files,
    training: options.Training,
    clips: options.Clips,
    settings: options.Settings,
) -> None:
    """Score a model file on the clips in DATA, or a version of the network by a protocol.

    A model file is scored separately on the clips it was trained on, on other clips of the same speakers and
    on unseen speakers. With --version, networks are trained and tested fold by fold. With --train and
    --test, one is trained on some corpora and tested on others (--train A --train B --test C).
    """
    between.check({"DATA": clips.data, "--model": model, "--protocol": protocol, "--conditions": conditions})
    if model and version:
        raise ConfigError(
            "--model and --version were both given", "--model scores a file, --version trains anew"
        )
    trains = version is not None or between.train
    if not trains and (protocol or training.epochs or files.predictions or files.report or seeds > 1):
        raise ConfigError(
            "--protocol, --epochs, --predictions, --report and --seeds go with --version",
            "For example --version v2",
        )
    protection = {"outputs": files.checked(), "read": [settings.config_file]}
    config = settings.config(clips, training)
    evaluation = _Evaluation(config, files, protection, format_, seeds, conditions)
    if between.train:
        evaluation.between_corpora(version or Version.v2, between.train, between.test or [])
    elif version:
        evaluation.by_protocol(version, protocol or Protocol.speaker_5fold)
    else:
        evaluation.of_model(model)


@dataclass(frozen=True)
class _Evaluation:
    config: Config
    files: Files
    protection: dict[str, Any]  # outputs and what is read, as `inputs.find` takes them
    format_: DocumentFormat | None
    seeds: int
    with_conditions: bool
    started: float = field(default_factory=time.perf_counter)

    def of_model(self, model: str | None) -> None:
        from speechemo_cli.evaluation import holdout, results
        from speechemo_cli.features.augment import condition_sets
        from speechemo_cli.models import model_file

        path = model_file.find(model, self.config.models)
        checked = model_file.check(path)
        metadata, shown = checked.metadata, model_file.shown(path)
        terminal.note(f"model: {shown} ({metadata.version}, {metadata.epochs} epochs, seed {metadata.seed})")
        self.protection["read"] += [path, model_file.litert_path(path)]
        others = condition_sets(metadata.feature_set) if self.with_conditions else ()
        corpus, clips = inputs.load_data(
            metadata.adopt(self.config), metadata.feature_set, others, metadata.labels, **self.protection
        )
        groups, conditions = holdout.score_model(checked.load(), metadata, clips)
        self.draw(MODEL_GROUP_TITLES, groups, metadata.labels, shown)
        parts = {name: group.summary() for name, group in groups.items()}
        headline = next(iter(parts))
        document = {
            "version": metadata.version,
            "model": shown,
            "labels": list(metadata.labels),
            "n_clips": len(clips.examples),
            "n_trained_on": parts[TRAINED]["n"] if TRAINED in parts else 0,
            "scored": headline,
            **parts[headline],
            **{name: parts.get(name) for name in GROUPS},
            **results.conditions_to_dict(conditions, groups[headline].scores),
            "near_copies": _paths(clips.near_copies),
        }
        self.finish(lambda: score_tables.of_model(groups, conditions), document, corpus, clips.extraction)

    def by_protocol(self, version: str, protocol: str) -> None:
        from speechemo_cli.corpus.splits import RANDOM_HOLDOUT_DRAWS
        from speechemo_cli.evaluation import protocols
        from speechemo_cli.features.augment import condition_sets

        require_writable(Path(self.config.runs))
        preset = protocols.preset_of(version, self.config)
        others = condition_sets(preset.feature_set) if self.with_conditions else ()
        corpus, clips = inputs.load_data(
            self.config, preset.feature_set, (*preset.others, *others), **self.protection
        )
        # Each draw of the random hold-out has a seed of its own.
        step = RANDOM_HOLDOUT_DRAWS if protocol == Protocol.random_holdout else 1
        results = self.by_seed(step, partial(protocols.run_protocol, version, protocol, clips))
        document = results[self.config.seed].to_dict()
        self.finish_training(results, preset.calibrate, document, corpus, clips.extraction)

    def between_corpora(self, version: str, train_on: list[str], test_on: list[str]) -> None:
        from speechemo_cli.evaluation import holdout, protocols
        from speechemo_cli.features import dataset

        found = inputs.find(self.config, [*train_on, *test_on], **self.protection)
        require_writable(Path(self.config.runs))
        preset = protocols.preset_of(version, self.config)
        load = partial(dataset.load, config=self.config, feature_set=preset.feature_set)
        with terminal.progress("extracting", "clips") as update:
            train = load(found.only(train_on).clips, others=preset.others, on_progress=update)
            kept, left_out = holdout.split_by_label(found.only(test_on).clips, train.labels)
            test = load(kept, labels=train.labels, on_progress=update, beside=train)
        inputs.report_loaded(train, test)
        if left_out:
            counts = display_name(", ".join(f"{label} ({n})" for label, n in left_out.items()))
            terminal.warn(f"left out of the test, as the training has no such label: {counts} clips")
        results = self.by_seed(1, partial(holdout.cross_corpus, version, train, test))
        first = results[self.config.seed]
        document = {
            **first.to_dict(),
            "shared_labels": list(first.shared_labels),
            "shared_speakers": list(first.shared_speakers),
            "left_out": left_out,
        }
        extraction = replace(train.extraction, failed=[*train.extraction.failed, *test.extraction.failed])
        self.finish_training(results, preset.calibrate, document, found, extraction)

    def by_seed(
        self, step: int, train: Callable[[Config, OnEpoch], ProtocolResult]
    ) -> dict[int, ProtocolResult]:
        """Train with each seed, beginning with the config's; the progress says which runs."""
        n, first = self.seeds, self.config.seed
        with terminal.progress("training", "epochs") as update:

            def one(i: int, seed: int) -> ProtocolResult:
                def on_epoch(stage: str, done: int, total: int, _: Any) -> None:
                    where = f"seed {seed}, {i + 1} of {n}: {stage}" if n > 1 else stage
                    update(i * total + done, n * total, where)

                return train(replace(self.config, seed=seed), on_epoch)

            return {first + i * step: one(i, first + i * step) for i in range(n)}

    def finish_training(
        self,
        results: dict[int, ProtocolResult],
        calibrate: bool,
        document: dict[str, Any],
        corpus: Collection,
        extraction: Extraction,
    ) -> None:
        """Write the files that were asked for, and print the result: of the first seed, and of all."""
        from speechemo_cli.evaluation import predictions, report
        from speechemo_cli.evaluation.results import over_seeds

        result = next(iter(results.values()))
        temperatures = [fold.temperature for fold in result.folds if fold.temperature is not None]
        lacking = calibrate and not result.protocol.shares_speakers and not result.calibrated
        score_tables.report_calibration(lacking, temperatures)
        self.draw(GROUP_TITLES, result.groups, result.labels, f"{result.version}, {result.protocol.name}")
        if self.files.predictions:
            predictions.write(result, self.files.predictions)
            terminal.note(f"predictions: {display_name(self.files.predictions)}")
        if self.files.report:
            origin = {
                "data": ", ".join(corpus.parts),
                "command": shlex.join(["speechemo", *sys.argv[1:]]),
                "date": datetime.now().astimezone().isoformat(" ", "minutes"),
            }
            report.write_report(result, self.files.report, origin, audio=not self.files.no_audio)
            terminal.note(f"report: {display_name(self.files.report)}")
        if not options.is_table(self.format_):  # which tells them, too
            for caution in result.cautions:
                terminal.warn(caution)
        of_seeds = {"by_seed": over_seeds(results)} if len(results) > 1 else {}
        document |= {"near_copies": _paths(result.near_copies), **of_seeds}

        def table() -> str:
            return "".join(map(score_tables.of_seeds, of_seeds.values())) + score_tables.of_protocol(result)

        self.finish(table, document, corpus, extraction)

    def draw(
        self, titles: Mapping[str, str], groups: Mapping[str, Answers], labels: tuple[str, ...], model: str
    ) -> None:
        """Draw a confusion matrix for each group, where --plot asks for it."""
        from speechemo_cli.evaluation import plots

        if not self.files.plot:
            return
        matrices = {}
        for name, group in groups.items():
            accuracy, uar = percent(group.scores.accuracy), percent(group.scores.uar)
            title = f"{model}: {titles[name]}\n{group.origin}\naccuracy {accuracy}, UAR {uar}"
            matrices[title] = group.scores.confusion
        plots.confusion(matrices, labels, self.files.plot)
        terminal.note(f"confusion matrix: {display_name(self.files.plot)}")

    def finish(
        self, table: Callable[[], str], document: dict[str, Any], corpus: Collection, extraction: Extraction
    ) -> None:
        document |= inputs.to_dict(corpus, extraction)
        document["seconds"] = round(time.perf_counter() - self.started, 3)
        options.show("evaluate", self.format_, table, document)
        inputs.exit_for(corpus, extraction)


def _paths(pairs: Iterable[tuple[Example, Example]]) -> list[list[str]]:
    return [[one.clip.path, other.clip.path] for one, other in pairs]
