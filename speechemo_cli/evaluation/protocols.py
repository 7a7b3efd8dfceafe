"""Train and score by a protocol, fold by fold, going on where a killed run stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus import ordered
from speechemo_cli.corpus.splits import PROTOCOLS, Fold, Protocol, folds, parted
from speechemo_cli.errors import DataError
from speechemo_cli.evaluation.metrics import apply_temperature, fit_temperature
from speechemo_cli.evaluation.results import FoldResult, ProtocolResult, group_of_clips
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import Preset, training, version_module
from speechemo_cli.models.training import Checkpoint, TrainingState

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.corpus.splits import Positions
    from speechemo_cli.features.dataset import Dataset

# (stage, epochs done, epochs, values of the epoch)
OnEpoch = Callable[[str, int, int, Mapping[str, float]], None]

# Speaker-disjoint folds by which confidences are corrected.
_CALIBRATION_PROTOCOL = "speaker-5fold"


def within(on_epoch: OnEpoch | None, stage: str, before: int, total: int) -> OnEpoch:
    """Name a stage before the stages inside it, and count its epochs among the `total` of the whole.

    `before` of these come before this stage.
    """

    def call(inner: str, done: int, _total: int, values: Mapping[str, float]) -> None:
        if on_epoch:
            on_epoch(", ".join(filter(None, (stage, inner))), before + done, total, values)

    return call


def calibration_folds(data: Dataset, config: Config) -> list[Fold]:
    """Return the speaker-disjoint folds of `calibrate`; none where no speaker can stay out."""
    try:
        return list(folds(data.examples, _CALIBRATION_PROTOCOL, config.seed))
    except DataError:
        return []


def preset_of(version: str, config: Config) -> Preset:
    """Return what a version is trained with under a config."""
    preset: Preset = version_module(version).PRESET
    return preset.with_config(config.train)


def uncalibrated(config: Config) -> Config:
    """Return the config of trainings inside another, whose confidences are left as they are."""
    return replace(config, train=replace(config.train, calibrate=False))


def run_protocol(
    version: str, protocol: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> ProtocolResult:
    """Train and score a version once a fold. Epochs are fixed by the preset; no fold picks them.

    Each trained network is kept in `config.runs`, and the state of the unfinished one from time to
    time: a run that was killed goes on where it was. One with other clips, features or settings
    begins anew. Where no speaker is shared and the preset says so, the confidences of a fold are corrected
    by a temperature from its training part. Raises DataError where the clips do not allow this protocol,
    LeakError where a test would leak into its training, AccessError where `config.runs` cannot be written.
    """
    plan = folds(data.examples, protocol, config.seed)
    return run_folds(version, PROTOCOLS[protocol], plan, data, config, on_epoch)


def run_folds(
    version: str,
    protocol: Protocol,
    plan: Sequence[Fold],
    data: Dataset,
    config: Config,
    on_epoch: OnEpoch | None = None,
) -> ProtocolResult:
    """Train and score a version on given trainings and tests, as `run_protocol` does."""
    preset = preset_of(version, config)
    results = []
    corrects = preset.calibrate and not protocol.shares_speakers
    # The folds are alike, so as many trainings go into each.
    trainings = 1 + (len(calibration_folds(data.subset(plan[0].train), config)) if corrects else 0)
    total = len(plan) * trainings * preset.epochs
    for i, fold in enumerate(plan):
        before, stage = i * trainings * preset.epochs, f"fold {fold.name} of {len(plan)}"
        inside = within(on_epoch, stage, before, total)
        model, finished = _train_fold(version, preset, fold, data, config, inside)
        answers, distances = training.predict(training.with_distance(model), data.x[fold.test])
        temperature = None
        if corrects:
            inside = within(on_epoch, stage, before + preset.epochs, total)
            inner = calibrate(version, data.subset(fold.train), config, inside)
            temperature = inner.temperature if inner else None
        train, test = ([data.examples[j] for j in at] for at in (fold.train, fold.test))
        trained = {example.clip.speaker_id for example in train} - {None}
        nameless = {example.clip.corpus for example in train if example.clip.speaker is None}
        results.append(
            FoldResult(
                data.labels,
                tuple(test),
                data.targets[fold.test],
                apply_temperature(answers, temperature or 1.0),
                fold.name,
                fold.test_speakers,
                finished.history,
                finished.seconds,
                group_of_clips([example.clip for example in test], trained, nameless),
                temperature,
                distances[:, 0],
                {name: training.predict(model, x[fold.test]) for name, x in data.by_condition.items()},
                ordered({example.clip.label for example in test} - {example.clip.label for example in train}),
                parted(data.near_copies, train, test),
            )
        )
    return ProtocolResult(
        data.labels,
        tuple(example for fold in results for example in fold.examples),
        np.concatenate([fold.truth for fold in results]),
        np.concatenate([fold.probabilities for fold in results]),
        version,
        protocol,
        preset.epochs,
        config.seed,
        tuple(results),
        tuple(sorted(set(data.corpora.tolist()))),
    )


@dataclass(frozen=True)
class Calibration:
    """How sure a network may be, measured on speakers who stayed out of its training.

    `temperature` was fitted on all answers together. In `result` each fold's answers are corrected by a
    temperature fitted on the other folds', so that its scores are not those of a correction that knew the
    truth.
    """

    temperature: float
    result: ProtocolResult

    def near(self, confidence: float) -> tuple[int, float]:
        """Return how many corrected answers are within 0.05 of a confidence, and how often they are right."""
        at = abs(self.result.confidence - confidence) <= 0.05
        return int(at.sum()), float(self.result.hits[at].mean()) if at.any() else 0.0


def calibrate(
    version: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> Calibration | None:
    """Fit a temperature on answers for unseen speakers: speaker-disjoint folds of a training part.

    `data` has the clips the network itself is trained on, and no other. None where no speaker can stay out:
    clips have no speaker or all the same, or what remains without some of the speakers has a single label.
    """
    data = data.without_conditions()
    plan = calibration_folds(data, config)
    if not plan:
        return None
    inside = within(on_epoch, "calibrating", 0, len(plan) * preset_of(version, config).epochs)
    rules = PROTOCOLS[_CALIBRATION_PROTOCOL]
    result = run_folds(version, rules, plan, data, uncalibrated(config), inside)
    fold_of_clip = np.repeat(np.arange(len(plan)), [len(fold.truth) for fold in result.folds])
    corrected = []
    for i, fold in enumerate(result.folds):
        others = fold_of_clip != i
        own = fit_temperature(result.probabilities[others], result.truth[others])
        probabilities = apply_temperature(fold.probabilities, own)
        corrected.append(replace(fold, probabilities=probabilities, temperature=own))
    probabilities = np.concatenate([fold.probabilities for fold in corrected])
    return Calibration(
        fit_temperature(result.probabilities, result.truth),
        replace(result, probabilities=probabilities, folds=tuple(corrected)),
    )


def _train_fold(
    version: str, preset: Preset, fold: Fold, data: Dataset, config: Config, on_epoch: OnEpoch
) -> tuple[Any, TrainingState]:
    """Train one network, unless an earlier run did."""
    path = training_path(version, data, fold.train, fold.seed, config)
    finished = TrainingState.read(path)
    if finished is not None:
        model = version_module(version).build(data.x.shape[1:], len(data.labels), preset)
        try:
            training.set_weights(model, finished.values)
            return model, finished
        except ValueError:
            pass  # not what this network wrote
    checkpoint = Checkpoint(path.with_suffix(".fold.npz"))
    trained = training.fit(
        version,
        preset,
        training.rows_of(data, fold.train, preset),
        len(data.labels),
        fold.seed,
        on_epoch=lambda *values: on_epoch("", *values),
        checkpoint=checkpoint,
    )
    weights = trained.model.get_weights()
    finished = TrainingState(weights, preset.epochs, trained.history, checkpoint.seconds)
    finished.write(path)
    checkpoint.drop()
    return trained.model, finished


def training_path(version: str, data: Dataset, train: Positions, seed: int, config: Config) -> Path:
    """Return the file in `config.runs` that keeps a finished training on some clips.

    Its name holds a hash of everything that decides what comes out: the network's source, its preset, the
    features, the clips with their labels and weights, the seed. So nothing is ever taken for something else,
    and a change of any of them begins anew. Trainings that two protocols have in common, or a protocol and
    its calibration, are done once.
    """
    network, preset = version_module(version), preset_of(version, config)
    sources = [Path(str(module.__file__)) for module in (network, training)]
    settings = asdict(preset)
    del settings["calibrate"]  # decides what is made of the answers, not the answers
    examples = [data.examples[i] for i in train]
    decisive = {
        "network": [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources],
        "preset": settings,
        "features": [FEATURE_SETS[name].fingerprint(config) for name in (preset.feature_set, *preset.others)],
        "labels": data.labels,
        "train": [
            (example.key, example.clip.label, weight)
            for example, weight in zip(examples, training.clip_weights(examples).tolist(), strict=True)
        ],
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return Path(config.runs) / f"{version}-{key}.npz"
