"""Train and score by a protocol; score a model file. What the numbers mean is said in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.splits import Holdout, folds, hold_out, is_speaker_independent
from speechemo_cli.evaluation.metrics import Scores, score
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import Preset, training, version_module
from speechemo_cli.models.artifact import ModelCard, library_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.features.dataset import Dataset

# (stage name, epochs done, epochs, values of the epoch)
OnEpoch = Callable[[str, int, int, Mapping[str, float]], None]

MEANING = {
    "random-holdout": "speakers, and mostly a twin recording of the same sentence, stand in training too",
    "random-5fold": "speakers, and mostly a twin recording of the same sentence, stand in training too",
    "speaker-5fold": "no speaker of the test was heard in training",
}


@dataclass(frozen=True)
class HoldoutResult:
    """A trained network with its scores on what was held out.

    Attributes
    ----------
    model : keras.Model
    card : ModelCard
    history : dict of str to list of float
    train, seen, new : Scores or None
        On the training clips, on held-out clips of known speakers, on speakers never heard.
    holdout : Holdout
    """

    model: Any
    card: ModelCard
    history: dict[str, list[float]]
    train: Scores
    seen: Scores | None
    new: Scores | None
    holdout: Holdout


def preset_of(version: str, config: Config) -> Preset:
    """Return what a version is trained with under a config."""
    preset: Preset = version_module(version).PRESET
    return preset.with_config(config.train)


def train_with_holdout(
    version: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> HoldoutResult:
    """Hold out clips as `config.train.split` says, train on the rest, score what was held out.

    Parameters
    ----------
    version : str
    data : Dataset
    config : Config
    on_epoch : callable, optional

    Returns
    -------
    HoldoutResult

    Raises
    ------
    DataError
        The clips do not allow this split.
    """
    holdout = hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    preset = preset_of(version, config)
    parts = {"train": holdout.train, "seen": holdout.seen, "new": holdout.new}
    trained = training.fit(
        version,
        preset,
        data.x[holdout.train],
        data.targets[holdout.train],
        len(data.labels),
        config.seed,
        watch={name: (data.x[at], data.targets[at]) for name, at in parts.items() if name != "train"},
        on_epoch=(lambda *values: on_epoch("training", *values)) if on_epoch else None,
    )
    scores = {
        name: score(data.targets[at], training.predict(trained.model, data.x[at]).argmax(axis=1), data.labels)
        if len(at)
        else None
        for name, at in parts.items()
    }
    assert scores["train"] is not None
    card = ModelCard(
        version=version,
        labels=data.labels,
        feature_set=preset.feature_set,
        feature_version=FEATURE_SETS[preset.feature_set].version,
        config=config.to_dict(),
        seed=config.seed,
        epochs=preset.epochs,
        versions=library_versions(),
        data={
            "train": [data.examples[i].key for i in holdout.train],
            "seen_speakers": [data.examples[i].key for i in holdout.seen],
            "new_speakers": [data.examples[i].key for i in holdout.new],
            "speakers": sorted({data.examples[i].clip.speaker or "" for i in holdout.train} - {""}),
        },
    )
    return HoldoutResult(
        trained.model, card, trained.history, scores["train"], scores["seen"], scores["new"], holdout
    )


@dataclass(frozen=True)
class FoldResult:
    """Scores of one fold."""

    name: str
    test_speakers: tuple[str, ...]
    scores: Scores


@dataclass(frozen=True)
class ProtocolResult:
    """Scores of a protocol.

    Attributes
    ----------
    version, protocol : str
    labels : tuple of str
    folds : tuple of FoldResult
    pooled : Scores
        Over the answers of all folds together.
    """

    version: str
    protocol: str
    labels: tuple[str, ...]
    folds: tuple[FoldResult, ...]
    pooled: Scores

    @property
    def speaker_independent(self) -> bool:
        """Whether no test speaker was heard in training."""
        return is_speaker_independent(self.protocol)

    def spread(self, metric: str) -> dict[str, float]:
        """Mean and standard deviation over the folds, and the pooled value, of a metric."""
        values = np.array([getattr(fold.scores, metric) for fold in self.folds])
        return {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "pooled": float(getattr(self.pooled, metric)),
        }


def run_protocol(
    version: str, protocol: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> ProtocolResult:
    """Train and score a version once a fold. Epochs are fixed by the preset; no fold picks them.

    Raises
    ------
    DataError
        The clips do not allow this protocol.
    """
    preset = preset_of(version, config)
    answers: list[NDArray[np.int64]] = []
    truths: list[NDArray[np.int64]] = []
    results = []
    plan = folds(data.examples, protocol, config.seed)
    for fold in plan:
        stage = f"fold {fold.name} of {len(plan)}"
        trained = training.fit(
            version,
            preset,
            data.x[fold.train],
            data.targets[fold.train],
            len(data.labels),
            fold.seed,
            on_epoch=(lambda *values, stage=stage: on_epoch(stage, *values)) if on_epoch else None,
        )
        answers.append(training.predict(trained.model, data.x[fold.test]).argmax(axis=1))
        truths.append(data.targets[fold.test])
        results.append(FoldResult(fold.name, fold.test_speakers, score(truths[-1], answers[-1], data.labels)))
    pooled = score(np.concatenate(truths), np.concatenate(answers), data.labels)
    return ProtocolResult(version, protocol, data.labels, tuple(results), pooled)


@dataclass(frozen=True)
class ModelResult:
    """Scores of a model file, apart for what it knows and what it does not.

    Attributes
    ----------
    card : ModelCard
    trained_on : Scores or None
        On clips the model was trained on: a measure of memory, not of skill.
    seen_speakers : Scores or None
        On other clips of speakers it was trained on (and of speakers nobody named).
    new_speakers : Scores or None
        On speakers it has never heard.
    unseen : Scores or None
        On all clips it was not trained on.
    """

    card: ModelCard
    trained_on: Scores | None
    seen_speakers: Scores | None
    new_speakers: Scores | None
    unseen: Scores | None


def score_model(model: Any, card: ModelCard, data: Dataset) -> ModelResult:
    """Score a model on labelled clips, by what it was trained on.

    Parameters
    ----------
    model : keras.Model
    card : ModelCard
    data : Dataset
        Its labels must be the model's.

    Returns
    -------
    ModelResult
    """
    answers = training.predict(model, data.x).argmax(axis=1)
    heard = set(card.data.get("speakers", ()))
    known = np.array([example.key in card.trained_on() for example in data.examples])
    voices = np.array(
        [not heard or (example.clip.speaker or "") in {*heard, ""} for example in data.examples]
    )

    def part(mask: NDArray[np.bool_]) -> Scores | None:
        return score(data.targets[mask], answers[mask], data.labels) if mask.any() else None

    return ModelResult(card, part(known), part(~known & voices), part(~known & ~voices), part(~known))


def with_results(card: ModelCard, results: Mapping[str, Any]) -> ModelCard:
    """Return the card with the scores in it."""
    return replace(card, results=dict(results))


def unknown_labels(clips: Sequence[Any], card: ModelCard) -> tuple[str, ...]:
    """Labels of the clips that the model cannot answer."""
    return tuple(sorted({clip.label for clip in clips} - set(card.labels)))
