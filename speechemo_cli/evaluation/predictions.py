"""Out-of-fold answers as a CSV file, and the paired comparison of two of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.errors import DataError
from speechemo_cli.evaluation.metrics import MIN_SPEAKERS, bootstrap_groups
from speechemo_cli.files import access_error, atomic_path, display_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.evaluation.results import ProtocolResult

_DRAWS = 10_000
_COLUMNS = (
    *("key", "path", "fold", "speaker", "gender", "intensity", "statement"),
    *("truth", "answer", "confidence"),
)
_HOW_MADE = "`speechemo evaluate --version V --predictions FILE.csv` makes one"


def write(result: ProtocolResult, path: Path) -> None:
    """Write every answer of a protocol: one line a tested clip, with all probabilities."""
    fold_names = [fold.name for fold in result.folds for _ in fold.examples]
    # The bytes of a name that is no UTF-8 are kept.
    with (
        atomic_path(path) as temp,
        temp.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"p_{label}" for label in result.labels)])
        for i, (example, fold) in enumerate(zip(result.examples, fold_names, strict=True)):
            clip, row = example.clip, result.probabilities[i]
            answer = int(row.argmax())
            writer.writerow(
                [
                    *(example.key, clip.path, fold),
                    *(clip.speaker_id, clip.gender, clip.intensity, clip.statement),
                    *(result.labels[int(result.truth[i])], result.labels[answer], f"{row[answer]:.6f}"),
                    *(f"{p:.6f}" for p in row),
                ]
            )


class Prediction(NamedTuple):
    """What of an answer is compared; the speaker is empty where nobody told."""

    speaker: str
    truth: str
    answer: str


@dataclass(frozen=True)
class Predictions:
    """A file of answers, by the hash of the samples and the fold."""

    name: str
    answers: dict[tuple[str, str], Prediction]


def read(path: Path) -> Predictions:
    """Read a file that `write` made; DataError where it is none, AccessError where it cannot be read."""
    name = display_name(path)
    try:
        # The csv module has its own idea of where a line ends. A pipe is fine: somebody has named it.
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
            reader = csv.DictReader(handle)
            rows, columns = list(reader), reader.fieldnames or ()
    except OSError as error:
        raise access_error("read", path, error) from error
    except csv.Error as error:
        raise DataError(f"{name} is no file of predictions: {error}", _HOW_MADE) from error
    missing = ", ".join(sorted(set(_COLUMNS) - set(columns)))
    if missing:
        raise DataError(f"{name} is no file of predictions: no column {missing}", _HOW_MADE)
    if not rows:
        raise DataError(f"{name} holds no prediction")
    if any(row[column] is None for row in rows for column in _COLUMNS):
        raise DataError(f"{name} is damaged: a line is too short", "Make it anew")
    answers = {
        (row["key"], row["fold"]): Prediction(row["speaker"], row["truth"], row["answer"]) for row in rows
    }
    if len(answers) < len(rows):
        raise DataError("a clip stands twice in the same fold of one file", "Make the files anew")
    return Predictions(name, answers)


@dataclass(frozen=True)
class Comparison:
    """Two sets of answers on the same clips and folds.

    `only_a` counts the clips that a alone got right. `difference` is the accuracy of b less that of a, and
    `by_speaker` the same for each known speaker. `ci95` is the interval of the difference by bootstrap over
    speakers, None for fewer than `MIN_SPEAKERS`: an interval of so few is far too narrow. `better` is `a`,
    `b`, or None where the interval holds 0 or there is none.
    """

    a: str
    b: str
    n: int
    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    difference: float
    by_speaker: dict[str, float]
    ci95: tuple[float, float] | None
    better: str | None


def compare(a: Predictions, b: Predictions, seed: int = 0) -> Comparison:
    """Compare two sets of answers, clip by clip; `seed` is the bootstrap's.

    Raises DataError where they are not about the same clips and folds.
    """
    if a.answers.keys() != b.answers.keys():
        raise DataError(
            f"{a.name} and {b.name} are about different clips or folds: {len(a.answers)} and"
            f" {len(b.answers)} answers, {len(a.answers.keys() & b.answers.keys())} in common",
            "Evaluate both with the same data, protocol and seed",
        )
    pairs = [(one, b.answers[key]) for key, one in a.answers.items()]
    if any(one.truth != other.truth for one, other in pairs):
        raise DataError(f"{a.name} and {b.name} disagree about the labels of the clips")
    right_a, right_b = np.array([[one.answer == one.truth for one in pair] for pair in pairs], float).T
    gain = right_b - right_a
    speakers = [one.speaker for one, _ in pairs]
    by_speaker = {
        name: float(gain[np.array(speakers) == name].mean()) for name in sorted(set(speakers) - {""})
    }
    ci95 = _interval(gain, speakers, seed) if len(by_speaker) >= MIN_SPEAKERS else None
    low, high = ci95 or (0.0, 0.0)
    return Comparison(
        a.name,
        b.name,
        len(pairs),
        float(right_a.mean()),
        float(right_b.mean()),
        int((gain < 0).sum()),
        int((gain > 0).sum()),
        float(gain.mean()),
        by_speaker,
        ci95,
        "b" if low > 0 else "a" if high < 0 else None,
    )


def _interval(gain: NDArray[np.float64], speakers: list[str], seed: int) -> tuple[float, float]:
    """Bootstrap over speakers (over clips where no speaker is known) of the mean gain."""
    unit_of_clip = bootstrap_groups(speakers)
    sums, counts = np.bincount(unit_of_clip, weights=gain), np.bincount(unit_of_clip)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(_DRAWS, len(sums)))
    means: NDArray[Any] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
