"""Train with a hold-out and score it; score a model file by what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.splits import Example, Holdout, hold_out, parted
from speechemo_cli.evaluation.cross_corpus import CrossCorpusResult, leave_corpora_out
from speechemo_cli.evaluation.groups import PUBLIC_CORPORA, Group, by_group, group_of_clips
from speechemo_cli.evaluation.metrics import Scores, score
from speechemo_cli.evaluation.protocols import (
    Calibration,
    OnEpoch,
    calibrate,
    calibration_folds,
    preset_of,
    within,
)
from speechemo_cli.evaluation.training_cache import CachedTraining
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.formatting import SEEN, TRAINED, counted
from speechemo_cli.models import training
from speechemo_cli.models.metadata import ModelMetadata
from speechemo_cli.models.model_file import library_versions

if TYPE_CHECKING:
    from speechemo_cli.config import Config
    from speechemo_cli.corpus.splits import Positions
    from speechemo_cli.features.dataset import Dataset
    from speechemo_cli.models.training import Checkpoint


@dataclass(frozen=True)
class HoldoutResult:
    """A trained network with its scores on what was held out.

    Attributes
    ----------
    model : keras.Model
    metadata : ModelMetadata
    train, seen, new : Scores or None
        On the training clips, on held-out clips of seen speakers, on unseen speakers.
    new_by_corpus : dict of str to Scores
        On the unseen speakers of each corpus; empty where all are of one.
    holdout : Holdout
    calibration : Calibration or None
        None where the preset asks for none, or fewer than two training speakers are known.
    other_corpora : dict of str to CrossCorpusResult
        By corpus, what a training without it was worth on it.
    unfinished : Checkpoint
        From which `resume` has the network again without training it; to drop once it is saved.
    near_copies : tuple of (Example, Example)
        Training and held-out clips that are nearly the same recording.
    """

    model: Any
    metadata: ModelMetadata
    train: Scores
    seen: Scores | None
    new: Scores | None
    new_by_corpus: dict[str, Scores]
    holdout: Holdout
    calibration: Calibration | None
    other_corpora: dict[str, CrossCorpusResult]
    unfinished: Checkpoint
    near_copies: tuple[tuple[Example, Example], ...] = ()

    @property
    def cautions(self) -> list[str]:
        """What a reader of the figures must know: labels without a training clip, near copies."""
        found = [
            f"{label} has no training clip, as all its speakers were held out"
            for label in self.holdout.untrained_labels
        ]
        if self.near_copies:
            n = counted(len(self.near_copies), "near copy", "near copies")
            found.append(f"{n} of held-out clips stood in training: the figures are too good")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON has them and as the model file keeps them."""

        def part(scores: Scores | None, **more: Any) -> dict[str, Any] | None:
            return None if scores is None else {**scores.to_dict(), **more}

        unlike = self.metadata.unlike
        return {
            "train": {"accuracy": self.train.accuracy, "n": self.train.n},
            "test": {
                "seen_speakers": part(self.seen),
                "new_speakers": part(
                    self.new,
                    speakers=list(self.holdout.new_speakers),
                    by_corpus={
                        name: {"n": one.n, "accuracy": one.accuracy, "uar": one.uar}
                        for name, one in self.new_by_corpus.items()
                    },
                ),
            },
            "untrained_labels": list(self.holdout.untrained_labels),
            "n_near_copies": len(self.near_copies),
            "temperature": self.metadata.temperature,
            "cross_validated": self.calibration.result.to_dict() if self.calibration else None,
            "other_corpora": {
                name: {
                    "n": one.result.pooled.n,
                    "accuracy": one.result.pooled.accuracy,
                    "uar": one.result.pooled.uar,
                    "labels": list(one.shared_labels),
                    "unlike": None
                    if unlike is None
                    else float((one.result.folds[0].distances > unlike).mean()),
                }
                for name, one in self.other_corpora.items()
            },
        }


def _unlike_above(calibration: Calibration) -> float:
    """Return the distance that 99 of 100 clips of left-out speakers stay below."""
    distances = np.concatenate([fold.distances for fold in calibration.result.folds])
    return round(float(np.quantile(distances, 0.99)), 4)


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
    speaker-disjoint folds of the training clips. What an interrupted run needs to go on stays until
    the caller has saved the network and drops `HoldoutResult.unfinished`.

    Parameters
    ----------
    version : str
    data : Dataset
    config : Config
    on_epoch : callable, optional
    resume : bool
        Go on where a killed training of the same clips and settings stopped.

    Raises
    ------
    DataError
        The clips do not allow this split.
    """
    holdout = hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    preset = preset_of(version, config)
    inner = data.subset(holdout.train)
    n_folds = len(calibration_folds(inner, config)) if preset.calibrate else 0
    n_corpora = len(set(inner.corpora.tolist())) if n_folds else 1
    first = n_folds + (n_corpora if n_corpora > 1 else 0)  # trainings before the one that is kept
    total = (first + 1) * preset.epochs
    parts = {"train": holdout.train, "seen": holdout.seen, "new": holdout.new}
    calibration, heldout_corpora = None, {}
    if n_folds:
        calibration = calibrate(version, inner, config, within(on_epoch, "", 0, total))
        without_one = within(on_epoch, "", n_folds * preset.epochs, total)
        heldout_corpora = leave_corpora_out(version, inner, config, without_one)
    unfinished = unfinished_training(version, data, config)
    if not resume:
        unfinished.drop()
    trained = training.fit(
        version,
        preset,
        training.rows_of(data, holdout.train, preset),
        len(data.labels),
        config.seed,
        watch={name: (data.x[at], data.targets[at]) for name, at in parts.items() if name != "train"},
        on_epoch=partial(within(on_epoch, "training", first * preset.epochs, total), ""),
        checkpoint=unfinished,
    )
    if calibration:
        training.divide_logits(trained.model, calibration.temperature)

    def scored(at: Positions) -> Scores:
        return score(data.targets[at], training.predict(trained.model, data.x[at]), data.labels)

    new_corpora = sorted(set(data.corpora[holdout.new].tolist()))
    new_by_corpus = {name: scored(holdout.new[data.corpora[holdout.new] == name]) for name in new_corpora}
    sides = [[data.examples[i] for i in at] for at in (holdout.train, [*holdout.seen, *holdout.new])]
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
        data=_told_of(data, holdout),
        history={name: [round(value, 6) for value in values] for name, values in trained.history.items()},
        parameters=trained.model.count_params(),
        unlike=_unlike_above(calibration) if calibration else None,
    )
    return HoldoutResult(
        trained.model,
        metadata,
        scored(holdout.train),
        scored(holdout.seen) if len(holdout.seen) else None,
        scored(holdout.new) if len(holdout.new) else None,
        new_by_corpus if len(new_corpora) > 1 else {},
        holdout,
        calibration,
        heldout_corpora,
        unfinished,
        parted(data.near_copies, *sides),
    )


def _told_of(data: Dataset, holdout: Holdout) -> dict[str, Any]:
    """Say what a model was trained on, as its file keeps it."""
    train = [data.examples[i] for i in holdout.train]
    clips = [example.clip for example in train]
    return {
        "train": [example.sha256 for example in train],
        "train_samples": [example.key for example in train],
        "seen_speakers": [data.examples[i].sha256 for i in holdout.seen],
        "new_speakers": [data.examples[i].sha256 for i in holdout.new],
        "speakers": sorted({clip.speaker_id or "" for clip in clips} - {""}),
        "corpora": {
            name: {
                "clips": sum(clip.corpus == name for clip in clips),
                "of_unknown_speakers": sum(clip.corpus == name and clip.speaker is None for clip in clips),
            }
            for name in sorted({clip.corpus for clip in clips})
        },
        "clips": {
            label: {
                "spoken": sum(clip.label == label and not clip.song for clip in clips),
                "sung": sum(clip.label == label and clip.song for clip in clips),
            }
            for label in data.labels
        },
        "longest_s": round(float(data.durations_s[holdout.train].max()), 3),
        "ravdess": all(clip.corpus == RAVDESS for clip in clips),
    }


def unfinished_training(version: str, data: Dataset, config: Config) -> Checkpoint:
    """Return where the state of this training is kept until it is finished."""
    holdout = hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    preset = preset_of(version, config)
    return CachedTraining(version, preset, data, holdout.train, config.seed, config, "train").checkpoint


@dataclass(frozen=True)
class ModelResult:
    """Scores of a model file, by what is known of the speakers.

    Attributes
    ----------
    metadata : ModelMetadata
    groups : dict of str to Group
        By `groups.GROUPS`, those there are: unseen speakers; unknown ones, where neither the clips nor the
        model file tell enough; other clips of seen speakers, near copies of clips it was trained on among
        them; and these, which show its memory, not its skill. The first is what counts.
    conditions : dict of str to Scores
        On the clips of the first group under other recording conditions.
    """

    metadata: ModelMetadata
    groups: dict[str, Group]
    conditions: dict[str, Scores]


def score_model(model: Any, metadata: ModelMetadata, data: Dataset) -> ModelResult:
    """Score a model on labelled clips, by what it was trained on.

    Parameters
    ----------
    model : keras.Model
    metadata : ModelMetadata
    data : Dataset
        Its labels must be the model's.
    """
    answers = training.predict(model, data.x)
    contents, samples = metadata.trained_on(), metadata.trained_on_samples()
    exact = [example.sha256 in contents or example.key in samples for example in data.examples]
    trained = {data.examples[i] for i in np.flatnonzero(exact)}
    copies = {other for pair in data.near_copies for one, other in (pair, pair[::-1]) if one in trained}
    # A folder may have another name than at the training: who said a clip it was trained on is seen.
    own = {example.clip.speaker_id or "" for example in trained | copies} - {""}
    corpora = metadata.data.get("corpora")
    nameless = [name for name, one in (corpora or {}).items() if one["of_unknown_speakers"]]
    if not corpora:  # it tells nothing, so anybody may have been trained on
        nameless = ["", *PUBLIC_CORPORA]
    clips = [example.clip for example in data.examples]
    names = group_of_clips(clips, {*metadata.data.get("speakers", ()), *own}, nameless)
    names = np.where([example in copies for example in data.examples], SEEN, names)
    names = np.where(exact, TRAINED, names)
    groups = by_group(names, data.labels, data.examples, data.targets, answers)
    counts = names == next(iter(groups))
    by_condition = {
        name: score(data.targets[counts], training.predict(model, x[counts]), data.labels)
        for name, x in data.by_condition.items()
    }
    return ModelResult(metadata, groups, by_condition)
