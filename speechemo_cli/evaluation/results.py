"""What was measured: answers by what is known of the speakers, the folds of a protocol, several seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.known import BY_NAME
from speechemo_cli.evaluation.metrics import METRICS, Scores, intervals, no_interval, reliability, score
from speechemo_cli.features.augment import CONDITIONS
from speechemo_cli.formatting import GROUPS, SEEN, UNKNOWN, UNSEEN, counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.corpus.splits import Example, Protocol

# Corpora whose names say for certain who is meant. A folder of people's own may have been renamed.
PUBLIC_CORPORA = frozenset(BY_NAME)
# What a clip can be grouped by, where its layout tells: the name of the slice and of the clip's value.
_SLICES = {"speaker": "speaker_id", **{name: name for name in ("gender", "intensity", "statement")}}
# A further column of a manifest with more values is a number or a text of its own for each clip.
_MOST_VALUES = 20


def group_of_clips(
    clips: Sequence[Clip], trained: Collection[str], nameless: Collection[str]
) -> NDArray[np.str_]:
    """Tell for each clip whether its speaker is unseen, unknown or seen [shape=(n,), of `GROUPS`].

    `trained` has the ids of the speakers that were trained on, `nameless` the corpora of training clips
    whose speaker is not known. A speaker is corpus and name. In people's own folders that is not certain: the
    same name may stand for the same person in two of them, and a nameless training clip may be anybody's.
    Such clips are unknown.
    """
    split = [speaker.rpartition("/") for speaker in trained]
    own_names = {name.casefold() for corpus, _, name in split if corpus not in PUBLIC_CORPORA}
    own_nameless = bool(set(nameless) - PUBLIC_CORPORA)

    def group(clip: Clip) -> str:
        if clip.speaker_id in trained:
            return SEEN
        if clip.speaker is None:
            return UNKNOWN
        if clip.corpus in PUBLIC_CORPORA:
            return UNKNOWN if clip.corpus in nameless else UNSEEN
        return UNKNOWN if own_nameless or clip.speaker.casefold() in own_names else UNSEEN

    return np.array([group(clip) for clip in clips], dtype=np.str_)


@dataclass(frozen=True)
class Answers:
    """Answers [shape=(n, n_labels)] to some clips; `truth` [shape=(n,)] has positions in `labels`."""

    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def scores(self) -> Scores:
        """Scores of all answers together."""
        return score(self.truth, self.probabilities, self.labels)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of each answer."""
        return np.asarray(self.probabilities.max(axis=1), np.float64)

    @cached_property
    def hits(self) -> NDArray[np.float64]:
        """1 where the answer is right, else 0."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.truth, np.float64)

    @property
    def speakers(self) -> list[str | None]:
        """Id of the speaker of each clip."""
        return [example.clip.speaker_id for example in self.examples]

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each metric, by bootstrap over speakers; empty where `no_interval` says why."""
        return intervals(self.truth, self.probabilities, self.speakers)

    @property
    def no_interval(self) -> str:
        """Why there is no interval; empty where there is one."""
        return no_interval(self.speakers)

    @property
    def corpora(self) -> dict[str, dict[str, int]]:
        """Of whom the figures are: how many speakers and recordings, by corpus."""
        clips = {example.key: example.clip for example in self.examples}.values()
        return {
            name: {
                "speakers": len({clip.speaker for clip in clips if clip.corpus == name} - {None}),
                "clips": sum(clip.corpus == name for clip in clips),
            }
            for name in sorted({clip.corpus for clip in clips})
        }

    @property
    def origin(self) -> str:
        """Say of whom the figures are: `ravdess: 4 speakers, 240 clips`."""
        return "; ".join(
            f"{name or 'data'}: {counted(one['speakers'], 'speaker')}, {counted(one['clips'], 'clip')}"
            for name, one in self.corpora.items()
        )

    def summary(self) -> dict[str, Any]:
        """Return what JSON has of a group of clips: scores with intervals, and its corpora."""
        return {
            **asdict(self.scores),
            "corpora": self.corpora,
            "ci95": {name: list(edges) for name, edges in self.intervals.items()} or None,
            "no_interval": self.no_interval,
        }

    def where(self, names: NDArray[np.str_]) -> dict[str, Answers]:
        """Divide the answers by the group of each clip, in the order of `GROUPS`; no group is empty."""
        if len(set(names.tolist())) == 1:
            return {str(names[0]): self}
        positions = {name: np.flatnonzero(names == name) for name in GROUPS}
        return {
            name: Answers(
                self.labels, tuple(self.examples[i] for i in at), self.truth[at], self.probabilities[at]
            )
            for name, at in positions.items()
            if len(at)
        }


@dataclass(frozen=True)
class FoldResult(Answers):
    """One fold: who was tested, what was answered, how the training went.

    `test_speakers` is empty where the protocol shares speakers. `history` has accuracy and loss on the
    training clips, one value an epoch. The training took `seconds`, maybe in an earlier run. `groups`
    [shape=(n,)] tells what is known of the speakers, `distances` [shape=(n,)] how far each clip is from those
    of the training (`training.with_distance`). The probabilities were corrected by `temperature`;
    `conditions` has those under other recording conditions.
    """

    name: str
    test_speakers: tuple[str, ...]
    history: dict[str, list[float]]
    seconds: float
    groups: NDArray[np.str_]
    temperature: float | None
    distances: NDArray[np.float32]
    conditions: dict[str, NDArray[np.float32]]
    untrained_labels: tuple[str, ...]
    near_copies: tuple[tuple[Example, Example], ...]


@dataclass(frozen=True)
class ProtocolResult(Answers):
    """What a version answered under a protocol, fold after fold, after trainings on `trained_corpora`."""

    version: str
    protocol: Protocol
    epochs: int
    seed: int
    folds: tuple[FoldResult, ...]
    trained_corpora: tuple[str, ...] = ()

    @cached_property
    def groups(self) -> dict[str, Answers]:
        """The answers by what is known of the speakers: unseen, unknown, seen."""
        return self.where(np.concatenate([fold.groups for fold in self.folds]))

    @property
    def shared_labels(self) -> tuple[str, ...]:
        """Labels that are tested and were trained on."""
        tested = [self.labels[i] for i in np.unique(self.truth)]
        return tuple(label for label in tested if label not in self.untrained_labels)

    @property
    def shared_speakers(self) -> tuple[str, ...]:
        """Ids of the tested speakers who were trained on."""
        return tuple(sorted({who or "" for who in self.groups[SEEN].speakers})) if SEEN in self.groups else ()

    @property
    def untrained_labels(self) -> dict[str, list[str]]:
        """Names of the folds by each label that they test although no training clip of theirs has it."""
        found: dict[str, list[str]] = {}
        for fold in self.folds:
            for label in fold.untrained_labels:
                found.setdefault(label, []).append(fold.name)
        return found

    @property
    def near_copies(self) -> tuple[tuple[Example, Example], ...]:
        """Pairs of a training and a test clip of one fold that are nearly the same recording."""
        return tuple(dict.fromkeys(pair for fold in self.folds for pair in fold.near_copies))

    @property
    def fewer_folds(self) -> str:
        """Say why fewer folds ran than the protocol has; empty where all did."""
        asked, ran = self.protocol.n_folds, len(self.folds)
        if ran >= asked:
            return ""
        n, why = len(set(self.speakers)), "the other published folds have none of the speakers"
        return f"{ran} of {asked} folds: {f'the clips have {n} speakers' if n < asked else why}"

    @property
    def cautions(self) -> list[str]:
        """What a reader of the figures must know: too few folds, labels never trained on, near copies."""
        found = [self.fewer_folds] if self.fewer_folds else []
        found += [
            f"{label} was tested without a training clip of it, as all its speakers were held out"
            f" (fold {', '.join(names)})"
            for label, names in self.untrained_labels.items()
        ]
        if self.near_copies:
            n = counted(len(self.near_copies), "near copy", "near copies")
            found.append(f"{n} of test clips stood in training: the figures are too good")
        return found

    def spread(self, metric: str) -> dict[str, Any]:
        """Mean and standard deviation over the folds, the pooled value and its 95 % interval."""
        values = np.array([getattr(fold.scores, metric) for fold in self.folds])
        return {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "pooled": float(getattr(self.scores, metric)),
            "ci95": list(self.intervals.get(metric, ())) or None,
        }

    @cached_property
    def conditions(self) -> dict[str, Scores]:
        """Scores of the same test clips under other recording conditions."""
        found = {}
        for name in self.folds[0].conditions:
            probabilities = np.concatenate([fold.conditions[name] for fold in self.folds])
            found[name] = score(self.truth, probabilities, self.labels)
        return found

    @property
    def calibrated(self) -> bool:
        """Whether every fold's confidences were corrected by a temperature."""
        return all(fold.temperature is not None for fold in self.folds)

    @cached_property
    def slices(self) -> dict[str, dict[str, Scores]]:
        """Scores by what the layout tells of the clips, by corpus, and by further columns of a manifest."""
        named = {"corpus": "corpus", **_SLICES} if len(self.corpora) > 1 else _SLICES
        values_by = {
            name: [str(getattr(e.clip, value_of) or "") for e in self.examples]
            for name, value_of in named.items()
        }
        extras = [dict(e.clip.extra) for e in self.examples]
        for name in dict.fromkeys(name for extra in extras for name in extra):
            values = [extra.get(name, "") for extra in extras]
            if name not in ("corpus", *_SLICES) and 2 <= len(set(values) - {""}) <= _MOST_VALUES:
                values_by[name] = values
        found: dict[str, dict[str, Scores]] = {}
        for name, values in values_by.items():
            for value in sorted(set(values) - {""}):
                at = np.array(values) == value
                one = score(self.truth[at], self.probabilities[at], self.labels)
                found.setdefault(name, {})[value] = one
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON has: the pooled scores with intervals, the folds and the slices."""
        scores = asdict(self.scores)
        return {
            "version": self.version,
            "protocol": self.protocol.name,
            "speaker_independent": list(self.groups) == [UNSEEN],
            "meaning": self.protocol.meaning,
            "no_interval": self.no_interval,
            "n_folds": {
                "asked": self.protocol.n_folds or len(self.folds),
                "ran": len(self.folds),
                "why_fewer": self.fewer_folds,
            },
            "untrained_labels": self.untrained_labels,
            "n_near_copies": len(self.near_copies),
            "corpora": {"trained_on": list(self.trained_corpora), "tested": list(self.corpora)},
            "seed": self.seed,
            "epochs": self.epochs,
            "calibrated": self.calibrated,
            "labels": list(self.labels),
            "n_clips": len({example.key for example in self.examples}),
            "n_answers": len(self.truth),
            **{name: self.spread(name) for name in METRICS},
            "per_class": scores["per_class"],
            **conditions_to_dict(self.conditions, self.scores),
            "confusion": scores["confusion"],
            "groups": {name: group.summary() for name, group in self.groups.items()},
            "reliability": [
                {"n": n, "confidence": confidence, "accuracy": accuracy}
                for n, confidence, accuracy in reliability(self.confidence, self.hits)
            ],
            "slices": {
                name: {value: scores.brief() for value, scores in parts.items()}
                for name, parts in self.slices.items()
            },
            "folds": [
                {
                    "test_speakers": list(fold.test_speakers),
                    **fold.scores.brief(),
                    "temperature": fold.temperature,
                    "seconds": round(fold.seconds, 1),
                }
                for fold in self.folds
            ],
        }


def over_seeds(results: Mapping[int, ProtocolResult]) -> dict[str, Any]:
    """Return accuracy and UAR by seed, with mean and range: how much the seed decides."""
    document: dict[str, Any] = {"seeds": list(results)}
    for metric in ("accuracy", "uar"):
        values = [float(getattr(result.scores, metric)) for result in results.values()]
        mean = sum(values) / len(values)
        document[metric] = {"mean": mean, "min": min(values), "max": max(values), "values": values}
    return document


def conditions_to_dict(scores: Mapping[str, Scores], plain: Scores) -> dict[str, Any]:
    """Return what JSON has: scores by condition, and the cost in accuracy against the clips as they are."""
    rows = {
        name: {"title": CONDITIONS[name].title, **one.brief(), "cost": plain.accuracy - one.accuracy}
        for name, one in scores.items()
    }
    return {"conditions": rows} if rows else {}
