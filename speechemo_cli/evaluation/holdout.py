"""Train with a hold-out and score it; score a model file, apart for what it knows and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.splits import Holdout, hold_out
from speechemo_cli.evaluation.metrics import Scores, score
from speechemo_cli.evaluation.protocols import Calibration, OnEpoch, calibrate, preset_of, within
from speechemo_cli.evaluation.runs import Run
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import training
from speechemo_cli.models.metadata import ModelMetadata
from speechemo_cli.models.model_file import library_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.layouts import Clip
    from speechemo_cli.features.dataset import Dataset
    from speechemo_cli.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class HoldoutResult:
    """A trained network with its scores on what was held out.

    Attributes
    ----------
    model : keras.Model
    metadata : ModelMetadata
    history : dict of str to list of float
    train, seen, new : Scores or None
        On the training clips, on held-out clips of known speakers, on speakers never heard.
    holdout : Holdout
    calibration : Calibration or None
        None where the preset asks for none, or fewer than two training speakers are known.
    """

    model: Any
    metadata: ModelMetadata
    history: dict[str, list[float]]
    train: Scores
    seen: Scores | None
    new: Scores | None
    holdout: Holdout
    calibration: Calibration | None


def train_with_holdout(
    version: str,
    data: Dataset,
    config: Config,
    on_epoch: OnEpoch | None = None,
    *,
    resume: bool = False,
) -> HoldoutResult:
    """Hold out clips as `config.train.split` says, train on the rest, score what was held out.

    Where the preset says so, the network's confidences are corrected by a temperature from
    speaker-disjoint folds of the training clips.

    Parameters
    ----------
    version : str
    data : Dataset
    config : Config
    on_epoch : callable, optional
    resume : bool
        Go on where a killed training of the same clips and settings stopped.

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
    progress = within(on_epoch, "training")
    parts = {"train": holdout.train, "seen": holdout.seen, "new": holdout.new}
    calibration = None
    if preset.calibrate:
        calibration = calibrate(version, data.subset(holdout.train), config, on_epoch)
    unfinished = unfinished_training(version, data, config)
    if not resume:
        unfinished.drop()
    trained = training.fit(
        version,
        preset,
        data.x[holdout.train],
        data.targets[holdout.train],
        len(data.labels),
        config.seed,
        watch={name: (data.x[at], data.targets[at]) for name, at in parts.items() if name != "train"},
        on_epoch=lambda *values: progress("", *values),
        checkpoint=unfinished,
    )
    if calibration:
        training.divide_logits(trained.model, calibration.temperature)
    scores = {
        name: score(data.targets[at], training.predict(trained.model, data.x[at]), data.labels)
        if len(at)
        else None
        for name, at in parts.items()
    }
    assert scores["train"] is not None
    heard = [data.examples[i].clip for i in holdout.train]
    metadata = ModelMetadata(
        version=version,
        labels=data.labels,
        feature_set=preset.feature_set,
        feature_version=FEATURE_SETS[preset.feature_set].version,
        config=config.to_dict(),
        seed=config.seed,
        epochs=preset.epochs,
        temperature=calibration.temperature if calibration else None,
        versions=library_versions(),
        data={
            "train": [data.examples[i].key for i in holdout.train],
            "seen_speakers": [data.examples[i].key for i in holdout.seen],
            "new_speakers": [data.examples[i].key for i in holdout.new],
            "speakers": sorted({clip.speaker or "" for clip in heard} - {""}),
            "clips": {
                label: {
                    "spoken": sum(clip.label == label and not clip.song for clip in heard),
                    "sung": sum(clip.label == label and clip.song for clip in heard),
                }
                for label in data.labels
            },
            "longest_s": round(float(data.durations_s[holdout.train].max()), 3),
            "ravdess": all(clip.statement is not None for clip in heard),
        },
        parameters=trained.model.count_params(),
    )
    return HoldoutResult(
        trained.model,
        metadata,
        trained.history,
        scores["train"],
        scores["seen"],
        scores["new"],
        holdout,
        calibration,
    )


def unfinished_training(version: str, data: Dataset, config: Config) -> Checkpoint:
    """Return where the state of this training is kept until it is finished."""
    holdout = hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    preset = preset_of(version, config)
    return Run(version, preset, data, holdout.train, config.seed, config, "train").checkpoint


@dataclass(frozen=True)
class ModelResult:
    """Scores of a model file, apart for what it knows and what it does not.

    Attributes
    ----------
    metadata : ModelMetadata
    trained_on : Scores or None
        On clips the model was trained on: a measure of memory, not of skill.
    seen_speakers : Scores or None
        On other clips of speakers it was trained on (and of speakers nobody named).
    new_speakers : Scores or None
        On speakers it has never heard.
    unseen : Scores or None
        On all clips it was not trained on.
    """

    metadata: ModelMetadata
    trained_on: Scores | None
    seen_speakers: Scores | None
    new_speakers: Scores | None
    unseen: Scores | None


def score_model(model: Any, metadata: ModelMetadata, data: Dataset) -> ModelResult:
    """Score a model on labelled clips, by what it was trained on.

    Parameters
    ----------
    model : keras.Model
    metadata : ModelMetadata
    data : Dataset
        Its labels must be the model's.

    Returns
    -------
    ModelResult
    """
    answers = training.predict(model, data.x)
    heard = set(metadata.data.get("speakers", ()))
    known = np.array([example.key in metadata.trained_on() for example in data.examples])
    voices = np.array(
        [not heard or (example.clip.speaker or "") in {*heard, ""} for example in data.examples]
    )

    def part(mask: NDArray[np.bool_]) -> Scores | None:
        return score(data.targets[mask], answers[mask], data.labels) if mask.any() else None

    return ModelResult(metadata, part(known), part(~known & voices), part(~known & ~voices), part(~known))


def unknown_labels(clips: Sequence[Clip], metadata: ModelMetadata) -> tuple[str, ...]:
    """Labels of the clips that the model cannot answer."""
    return tuple(sorted({clip.label for clip in clips} - set(metadata.labels)))
