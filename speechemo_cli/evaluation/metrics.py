"""Scores of a set of answers, how sure one can be of them, and the temperature that corrects confidences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Targets = NDArray[np.int64]
    Probabilities = NDArray[np.float32]
    Floats = NDArray[np.float64]

# The metrics that get an interval.
METRICS = ("accuracy", "uar", "macro_f1", "nll", "brier", "ece")
# Drawn anew, fewer speakers give an interval that says little but how much these few differ.
MIN_SPEAKERS = 5
# A temperature beyond these bounds belongs to a network that knows nothing, or to a handful of clips.
TEMPERATURE_BOUNDS = (0.2, 10.0)
# Bins of equal mass: with equal widths, most of a sure network's answers fall into one bin.
_ECE_BINS = 15
_DRAWS = 1000
# The least probability whose logarithm float32 tells from the next one's.
_LEAST = 1e-30


@dataclass(frozen=True)
class ClassScore:
    """Precision and recall of one label; None where nothing was answered so, or nothing is so."""

    n: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Scores:
    """What a set of answers is worth.

    `accuracy` is the share of right answers (WA in the field's papers). `uar`, the unweighted average recall,
    and `macro_f1` are means over the labels that occur. `nll` is the mean negative logarithm of the
    probability given to the truth, in nats; `brier` the mean squared distance of the probabilities from the
    truth, 0 to 2 (Brier 1950). Of `confusion`, rows are the truth and columns the answers.
    """

    n: int
    accuracy: float
    uar: float
    macro_f1: float
    nll: float
    brier: float
    ece: float
    per_class: dict[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]

    def brief(self) -> dict[str, Any]:
        """Return the few numbers that stand in a row of a table."""
        return {"n": self.n, "accuracy": self.accuracy, "uar": self.uar}


def score(truth: Targets, probabilities: Probabilities, labels: Sequence[str]) -> Scores:
    """Score answers [shape=(n, n_labels)] against the truth [shape=(n,)], which has positions in `labels`."""
    values, matrix = _measure(truth, probabilities)
    counts = (matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist())
    per_class = {
        label: ClassScore(n, right / answered if answered else None, right / n if n else None)
        for label, right, n, answered in zip(labels, *counts, strict=True)
    }
    confusion = tuple(map(tuple, matrix.tolist()))
    return Scores(n=len(truth), **values, per_class=per_class, confusion=confusion)


def _measure(truth: Targets, probabilities: Probabilities) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Return the value of each of `METRICS`, and the confusion matrix."""
    p = probabilities.astype(np.float64)
    answers, n_labels = p.argmax(axis=1), p.shape[1]
    matrix = np.bincount(truth * n_labels + answers, minlength=n_labels**2).reshape(n_labels, n_labels)
    present = matrix.any(axis=1)
    right, true_n = matrix.diagonal()[present], matrix.sum(axis=1)[present]
    of_truth = p[np.arange(len(truth)), truth]
    values = {
        "accuracy": right.sum() / len(truth),
        "uar": (right / true_n).mean(),
        "macro_f1": (2 * right / (true_n + matrix.sum(axis=0)[present])).mean(),
        "nll": -np.log(np.maximum(of_truth, 1e-12)).mean(),
        "brier": ((p**2).sum(axis=1) - 2 * of_truth + 1).mean(),
        "ece": ece(p.max(axis=1), (answers == truth).astype(np.float64)),
    }
    return {name: float(value) for name, value in values.items()}, matrix


def ece(confidence: Floats, hits: Floats) -> float:
    """Return the expected calibration error: the mean over the clips of |accuracy - confidence| of their bin.

    Bins are of equal mass (Nguyen & O'Connor 2015).
    """
    return sum(n * abs(right - sure) for n, sure, right in reliability(confidence, hits)) / len(hits)


def reliability(confidence: NDArray[np.float64], hits: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    """Cut answers into bins of equal mass by confidence: how many, mean confidence and accuracy of each.

    `hits` is 1 where an answer is right, else 0.
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(_ECE_BINS, len(hits)))
    return [(len(part), float(confidence[part].mean()), float(hits[part].mean())) for part in parts]


def bootstrap_groups(groups: Sequence[str | None]) -> NDArray[np.intp]:
    """Give each clip its unit of a bootstrap, from 0: its speaker, or the clip itself where none is told."""
    names = np.array([f"speaker {group}" if group else f"clip {i}" for i, group in enumerate(groups)])
    return np.unique(names, return_inverse=True)[1]


def no_interval(groups: Iterable[str | None]) -> str:
    """Say why there is no interval over so few speakers: `2 speakers: no interval`; empty where there is."""
    n = len({group for group in groups if group})
    if n >= MIN_SPEAKERS:
        return ""
    return f"{counted(n, 'speaker')}: no interval" if n else "speakers not known: no interval"


def intervals(
    truth: Targets, probabilities: Probabilities, groups: Sequence[str | None]
) -> dict[str, tuple[float, float]]:
    """95 % intervals of every metric, by bootstrap over `groups`, the speaker of each clip.

    Clips of one speaker are right or wrong together, so clips drawn one by one would give intervals
    far too narrow. Speakers are drawn with replacement, with all their clips (Efron & Tibshirani
    1993, ch. 8); clips whose speaker is not known are drawn one by one. The calibration error of a
    draw is larger than that of the clips it was drawn from, so its interval leans upwards.
    Empty where fewer than `MIN_SPEAKERS` speakers are known.
    """
    if no_interval(groups):
        return {}
    unit_of_clip = bootstrap_groups(groups)
    members = [np.flatnonzero(unit_of_clip == i) for i in range(unit_of_clip.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        at = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        drawn.append(list(_measure(truth[at], probabilities[at])[0].values()))
    edges = np.quantile(drawn, (0.025, 0.975), axis=0)
    return {name: (low, high) for name, low, high in zip(METRICS, *edges.tolist(), strict=True)}


def fit_temperature(probabilities: Probabilities, truth: Targets) -> float:
    """Find the temperature that makes the truth most likely, given answers for clips not trained on.

    Minimises the mean cross-entropy of softmax(log(p) / T) over T (Guo et al. 2017, ICML: temperature
    scaling; log p is the logit, but for a constant that cancels). It is convex in 1 / T. The result is above
    1 where the network is too sure of itself, and within `TEMPERATURE_BOUNDS`.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = _logits(probabilities)
    of_truth = logits[np.arange(len(truth)), truth]

    def cross_entropy(sharpness: float) -> float:
        return float(np.mean(logsumexp(sharpness * logits, axis=1) - sharpness * of_truth))

    low, high = TEMPERATURE_BOUNDS
    found: Any = minimize_scalar(cross_entropy, bounds=(1 / high, 1 / low), method="bounded")
    return float(1 / found.x)


def at_bound(temperature: float) -> bool:
    """Whether a fitted temperature stopped at a bound, so that a better one may lie beyond."""
    low, high = TEMPERATURE_BOUNDS
    return not low * 1.01 < temperature < high * 0.99


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Soften (above 1) or sharpen (below 1) probabilities; which label is first stays as it is."""
    if temperature == 1:
        return probabilities
    from scipy.special import softmax

    out: Probabilities = softmax(_logits(probabilities) / temperature, axis=1).astype(np.float32)
    return out


def _logits(probabilities: Probabilities) -> Floats:
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
