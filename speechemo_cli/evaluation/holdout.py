"""Train once and score: with a hold-out, on other corpora; score a model file by what it was trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus import ordered, splits
from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.errors import NoInputError
from speechemo_cli.evaluation import protocols
from speechemo_cli.evaluation.metrics import Scores, score
from speechemo_cli.evaluation.results import PUBLIC_CORPORA, Answers, ProtocolResult, group_of_clips
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.formatting import SEEN, TRAINED, counted
from speechemo_cli.models import training
from speechemo_cli.models.metadata import ModelMetadata
from speechemo_cli.models.model_file import library_versions
from speechemo_cli.models.training import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.corpus.splits import Example, Holdout, Positions
    from speechemo_cli.evaluation.protocols import Calibration, OnEpoch
    from speechemo_cli.features.dataset import Dataset


@dataclass(frozen=True)
class HoldoutResult:
    """A trained network with its scores on the training clips and on what was held out.

    `seen` is on held-out clips of seen speakers, `new` on unseen speakers, `new_by_corpus` on those of each
    corpus, empty where all are of one. `calibration` is None where the preset asks for none, or fewer than
    two training speakers are known. `other_corpora` tells what a training without a corpus was worth on it.
    From `unfinished`, to drop once the network is saved, `resume` has it again without training it.
    `near_copies` are training and held-out clips that are nearly the same recording.
    """

    model: Any
    metadata: ModelMetadata
    train: Scores
    seen: Scores | None
    new: Scores | None
    new_by_corpus: dict[str, Scores]
    holdout: Holdout
    calibration: Calibration | None
    other_corpora: dict[str, ProtocolResult]
    unfinished: Checkpoint
    near_copies: tuple[tuple[Example, Example], ...]

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
        unlike = self.metadata.unlike
        seen, new = (asdict(scores) if scores else None for scores in (self.seen, self.new))
        if new:
            new["speakers"] = list(self.holdout.new_speakers)
            new["by_corpus"] = {name: scores.brief() for name, scores in self.new_by_corpus.items()}
        return {
            "train": {"accuracy": self.train.accuracy, "n": self.train.n},
            "test": {"seen_speakers": seen, "new_speakers": new},
            "untrained_labels": list(self.holdout.untrained_labels),
            "n_near_copies": len(self.near_copies),
            "temperature": self.metadata.temperature,
            "cross_validated": self.calibration.result.to_dict() if self.calibration else None,
            "other_corpora": {
                name: {
                    **one.scores.brief(),
                    "labels": list(one.shared_labels),
                    "unlike": None if unlike is None else float((one.folds[0].distances > unlike).mean()),
                }
                for name, one in self.other_corpora.items()
            },
        }


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
    the caller has saved the network and drops `HoldoutResult.unfinished`; with `resume` a killed training of
    the same clips and settings goes on where it stopped. Raises DataError where the clips do not allow
    this split.
    """
    holdout = splits.hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    preset = protocols.preset_of(version, config)
    held_out = {"seen": holdout.seen, "new": holdout.new}
    inner = data.subset(holdout.train)
    n_folds = len(protocols.calibration_folds(inner, config)) if preset.calibrate else 0
    n_corpora = len(set(inner.corpora.tolist())) if n_folds else 1
    first = n_folds + (n_corpora if n_corpora > 1 else 0)  # trainings before the one that is kept
    total = (first + 1) * preset.epochs
    calibration, other_corpora, unlike = None, {}, None
    if n_folds:
        calibration = protocols.calibrate(version, inner, config, protocols.within(on_epoch, "", 0, total))
        without_one = protocols.within(on_epoch, "", n_folds * preset.epochs, total)
        other_corpora = leave_corpora_out(version, inner, config, without_one)
    unfinished = unfinished_training(version, data, config)
    if not resume:
        unfinished.drop()
    trained = training.fit(
        version,
        preset,
        training.rows_of(data, holdout.train, preset),
        len(data.labels),
        config.seed,
        watch={name: (data.x[at], data.targets[at]) for name, at in held_out.items()},
        on_epoch=partial(protocols.within(on_epoch, "training", first * preset.epochs, total), ""),
        checkpoint=unfinished,
    )
    if calibration:
        training.divide_logits(trained.model, calibration.temperature)
        # The distance that 99 of 100 clips of left-out speakers stay below.
        distances = np.concatenate([fold.distances for fold in calibration.result.folds])
        unlike = round(float(np.quantile(distances, 0.99)), 4)

    def scored(at: Positions) -> Scores:
        return score(data.targets[at], training.predict(trained.model, data.x[at]), data.labels)

    new_corpora = sorted(set(data.corpora[holdout.new].tolist()))
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
        data=_training_data(data, holdout),
        history={name: [round(value, 6) for value in values] for name, values in trained.history.items()},
        parameters=trained.model.count_params(),
        unlike=unlike,
    )
    sides = [[data.examples[i] for i in at] for at in (holdout.train, [*holdout.seen, *holdout.new])]
    return HoldoutResult(
        trained.model,
        metadata,
        scored(holdout.train),
        scored(holdout.seen) if len(holdout.seen) else None,
        scored(holdout.new) if len(holdout.new) else None,
        {name: scored(holdout.new[data.corpora[holdout.new] == name]) for name in new_corpora}
        if len(new_corpora) > 1
        else {},
        holdout,
        calibration,
        other_corpora,
        unfinished,
        splits.parted(data.near_copies, *sides),
    )


def _training_data(data: Dataset, holdout: Holdout) -> dict[str, Any]:
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
    holdout = splits.hold_out(data.examples, config.train.split, config.train.test_share, config.seed)
    path = protocols.training_path(version, data, holdout.train, config.seed, config)
    # What is watched differs from that of a fold, and so does the history.
    return Checkpoint(path.with_suffix(".train.npz"))


def score_model(
    model: Any, metadata: ModelMetadata, data: Dataset
) -> tuple[dict[str, Answers], dict[str, Scores]]:
    """Score a model on labelled clips, which must have its labels: by what is known of the speakers.

    The groups are those of `formatting.GROUPS` that have clips: unseen speakers; unknown ones, where neither
    the clips nor the model file tell enough; other clips of seen speakers, near copies of clips it was
    trained on among them; and these, which show its memory, not its skill. The first is what counts; the
    scores beside the groups are on its clips under other recording conditions.
    """
    contents, samples = (set(metadata.data.get(part, ())) for part in ("train", "train_samples"))
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
    answers = Answers(data.labels, data.examples, data.targets, training.predict(model, data.x))
    groups = answers.where(names)
    counts = names == next(iter(groups))
    by_condition = {
        name: score(data.targets[counts], training.predict(model, x[counts]), data.labels)
        for name, x in data.by_condition.items()
    }
    return groups, by_condition


def split_by_label(clips: Sequence[Clip], labels: Sequence[str]) -> tuple[list[Clip], dict[str, int]]:
    """Keep the test clips whose labels are trained on, and count the others by label.

    Raises NoInputError where none is left.
    """
    kept = [clip for clip in clips if clip.label in labels]
    counts = Counter(clip.label for clip in clips if clip.label not in labels)
    left_out = {label: counts[label] for label in ordered(counts)}
    if not kept:
        raise NoInputError(
            f"no test clip has a label of the training: found {', '.join(left_out) or 'no clips'}, "
            f"expected {', '.join(labels)}",
            "Labels of a manifest or of folders can be renamed",
        )
    return kept, left_out


def cross_corpus(
    version: str, train: Dataset, test: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> ProtocolResult:
    """Train a version on every clip of one data set and score it on every clip of another.

    Both have the list of labels of the training. Sung clips beside spoken ones are trained on, never tested.
    Raises DataError where the training has fewer than two labels, LeakError where the same recording stands
    on both sides.
    """
    data = replace(
        train,
        examples=train.examples + test.examples,
        x=np.concatenate([train.x, test.x]),
        targets=np.concatenate([train.targets, test.targets]),
        durations_s=np.concatenate([train.durations_s, test.durations_s]),
        near_copies=tuple(dict.fromkeys(train.near_copies + test.near_copies)),
        # What is tested alone has no augmented copies.
        others={
            name: np.concatenate([rows, np.zeros((len(test.x), *rows.shape[1:]), np.float32)])
            for name, rows in train.others.items()
        },
    )
    n = len(train.examples)
    return _cross(version, data, np.arange(n), np.arange(n, len(data.examples)), config, on_epoch)


def leave_corpora_out(
    version: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> dict[str, ProtocolResult]:
    """Leave each corpus out of the training in turn and test on it: what a model is worth on other corpora.

    By the name of the corpus that was left out; empty where there is one corpus alone.
    """
    names = sorted(set(data.corpora.tolist()))
    results = {}
    epochs = protocols.preset_of(version, config).epochs
    for i, name in enumerate(names if len(names) > 1 else []):
        train = np.flatnonzero(data.corpora != name)
        test = np.flatnonzero((data.corpora == name) & np.isin(data.targets, data.targets[train]))
        if len(test) and len(set(data.targets[train].tolist())) > 1:
            inside = protocols.within(on_epoch, f"without {name}", i * epochs, len(names) * epochs)
            results[name] = _cross(version, data, train, test, protocols.uncalibrated(config), inside)
    return results


def _cross(
    version: str, data: Dataset, train: Positions, test: Positions, config: Config, on_epoch: OnEpoch | None
) -> ProtocolResult:
    test = test[splits.spoken([data.examples[i] for i in test])]
    splits.require_labels([data.examples[i] for i in train])
    splits.check_no_leakage(data.examples, train, test)
    trained, tested = ({data.examples[i].clip.speaker_id or "" for i in at} - {""} for at in (train, test))
    rules = splits.Protocol("cross-corpus", not trained.isdisjoint(tested), False, 1)
    fold = splits.Fold("1", train, test, config.seed, tuple(sorted(tested)))
    result = protocols.run_folds(version, rules, [fold], data, config, on_epoch)
    corpora = tuple(sorted(set(data.corpora[train].tolist())))
    description = (
        f"every clip of {', '.join(corpora)} is trained on"
        f" and every clip of {', '.join(result.corpora)} tested;"
        f" UAR is over the {len(result.shared_labels)} labels that both have"
    )
    if result.shared_speakers:
        description += f"; {len(result.shared_speakers)} speakers stand in both"
    return replace(result, protocol=replace(rules, description=description), trained_corpora=corpora)
