"""Train and score by a protocol, fold by fold, going on where a killed run stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.folds import PROTOCOLS, Fold, Protocol, folds
from speechemo_cli.corpus.labels import ordered
from speechemo_cli.corpus.splits import parted
from speechemo_cli.errors import DataError
from speechemo_cli.evaluation.calibration import apply_temperature, fit_temperature
from speechemo_cli.evaluation.groups import group_of_clips
from speechemo_cli.evaluation.metrics import score
from speechemo_cli.evaluation.results import FoldResult, ProtocolResult
from speechemo_cli.evaluation.training_cache import CachedTraining
from speechemo_cli.models import Preset, training, version_module
from speechemo_cli.models.training import TrainingState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.features.dataset import Dataset

# (stage, epochs done, epochs, values of the epoch)
OnEpoch = Callable[[str, int, int, Mapping[str, float]], None]

# Speaker-disjoint folds by which confidences are corrected.
_CALIBRATION_PROTOCOL = "speaker-5fold"


def within(on_epoch: OnEpoch | None, stage: str, before: int, total: int) -> OnEpoch:
    """Name a stage before the stages inside it, and count its epochs among those of the whole.

    Parameters
    ----------
    on_epoch : callable or None
    stage : str
    before, total : int
        Epochs of the whole that come before this stage, and all of them.
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


def run_protocol(
    version: str, protocol: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> ProtocolResult:
    """Train and score a version once a fold. Epochs are fixed by the preset; no fold picks them.

    Each trained network is kept in `config.runs`, and the state of the unfinished one from time to
    time: a run that was killed goes on where it was. One with other clips, features or settings
    begins anew. Where no speaker is shared and the preset says so, the confidences of a fold are corrected
    by a temperature from its training part.

    Raises
    ------
    DataError
        The clips do not allow this protocol.
    LeakError
        A test would leak into its training.
    AccessError
        `config.runs` cannot be written.
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
        probabilities = apply_temperature(answers, temperature or 1.0)
        results.append(
            FoldResult(
                fold.name,
                fold.test_speakers,
                fold.test,
                probabilities,
                finished.history,
                score(data.targets[fold.test], probabilities, data.labels),
                finished.seconds,
                temperature,
                distances[:, 0],
                {name: training.predict(model, x[fold.test]) for name, x in data.by_condition.items()},
                *_whom(data, fold),
            )
        )
    return _pool(version, protocol, preset, data, config, results)


def _whom(
    data: Dataset, fold: Fold
) -> tuple[NDArray[np.str_], tuple[str, ...], tuple[tuple[Example, Example], ...]]:
    """Return the groups of the test clips of a fold, the labels without training and the near copies."""
    train, test = ([data.examples[i] for i in at] for at in (fold.train, fold.test))
    trained = {example.clip.speaker_id for example in train} - {None}
    nameless = {example.clip.corpus for example in train if example.clip.speaker is None}
    groups = group_of_clips([example.clip for example in test], trained, nameless)
    labels = {example.clip.label for example in test} - {example.clip.label for example in train}
    return groups, ordered(labels), parted(data.near_copies, train, test)


@dataclass(frozen=True)
class Calibration:
    """How sure a network may be, measured on speakers who stayed out of its training.

    Attributes
    ----------
    temperature : float
        Fitted on all answers of `result` together, before they were corrected.
    result : ProtocolResult
        Each fold's answers are corrected by a temperature fitted on the other folds', so that its
        scores are not those of a correction that knew the truth.
    """

    temperature: float
    result: ProtocolResult

    def near(self, confidence: float = 0.8, within: float = 0.05) -> tuple[int, float]:
        """Return how many corrected answers have about this confidence, and how often these are right."""
        at = abs(self.result.confidence - confidence) <= within
        return int(at.sum()), float(self.result.hits[at].mean()) if at.any() else 0.0


def calibrate(
    version: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> Calibration | None:
    """Fit a temperature on answers for unseen speakers: speaker-disjoint folds of a training part.

    Parameters
    ----------
    version : str
    data : Dataset
        The clips the network itself is trained on, and no other.
    config : Config
    on_epoch : callable, optional

    Returns
    -------
    Calibration or None
        None where no speaker can stay out: clips have no speaker or all the same, or what remains without
        some of the speakers has a single label.
    """
    plain = replace(config, train=replace(config.train, calibrate=False))
    data = data.without_conditions()
    rules, plan = PROTOCOLS[_CALIBRATION_PROTOCOL], calibration_folds(data, config)
    if not plan:
        return None
    preset = preset_of(version, plain)
    inside = within(on_epoch, "calibrating", 0, len(plan) * preset.epochs)
    result = run_folds(version, rules, plan, data, plain, inside)
    temperature = fit_temperature(result.probabilities, result.truth)
    corrected = []
    for fold in result.folds:
        others = np.concatenate([other.test for other in result.folds if other is not fold])
        answers = np.concatenate([other.probabilities for other in result.folds if other is not fold])
        own = fit_temperature(answers, data.targets[others])
        probabilities = apply_temperature(fold.probabilities, own)
        scores = score(data.targets[fold.test], probabilities, data.labels)
        corrected.append(replace(fold, probabilities=probabilities, scores=scores, temperature=own))
    return Calibration(temperature, _pool(version, rules, preset, data, config, corrected))


def _train_fold(
    version: str, preset: Preset, fold: Fold, data: Dataset, config: Config, on_epoch: OnEpoch
) -> tuple[Any, TrainingState]:
    """Train one network, unless an earlier run did."""
    cached = CachedTraining(version, preset, data, fold.train, fold.seed, config)
    finished = cached.read()
    if finished is not None:
        network = version_module(version)
        model = network.build(data.x.shape[1:], len(data.labels), preset)
        try:
            training.set_weights(model, finished.values)
        except ValueError:  # not what this network wrote
            finished = None
    if finished is None:
        trained = training.fit(
            version,
            preset,
            training.rows_of(data, fold.train, preset),
            len(data.labels),
            fold.seed,
            on_epoch=lambda *values: on_epoch("", *values),
            checkpoint=cached.checkpoint,
        )
        model = trained.model
        seconds = cached.checkpoint.seconds
        finished = TrainingState(model.get_weights(), preset.epochs, trained.history, seconds)
        cached.write(finished)
        cached.checkpoint.drop()
    return model, finished


def _pool(
    version: str,
    protocol: Protocol,
    preset: Preset,
    data: Dataset,
    config: Config,
    results: list[FoldResult],
) -> ProtocolResult:
    order = np.concatenate([result.test for result in results])
    return ProtocolResult(
        version,
        protocol,
        data.labels,
        preset.epochs,
        config.seed,
        tuple(results),
        tuple(data.examples[i] for i in order),
        data.targets[order],
        np.concatenate([result.probabilities for result in results]),
        tuple(sorted(set(data.corpora.tolist()))),
    )
