"""Out-of-fold answers as a CSV file, and the paired comparison of two of them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
_PROBABILITY = "p_"
_HOW_MADE = "`speechemo evaluate --version V --predictions FILE.csv` makes one"


def write(result: ProtocolResult, path: Path) -> None:
    """Write every answer of a protocol: one line a tested clip, with all probabilities."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"{_PROBABILITY}{label}" for label in result.labels)])
    fold_names = [fold.name for fold in result.folds for _ in fold.test]
    for i, (example, fold) in enumerate(zip(result.examples, fold_names, strict=True)):
        clip, row = example.clip, result.probabilities[i]
        told = [clip.speaker_id, clip.gender, clip.intensity, clip.statement]
        answer = int(row.argmax())
        writer.writerow(
            [
                *(example.key, clip.path, fold),
                *("" if value is None else value for value in told),
                *(result.labels[int(result.truth[i])], result.labels[answer], f"{row[answer]:.6f}"),
                *(f"{p:.6f}" for p in row),
            ]
        )
    with atomic_path(path) as temp:
        # The bytes of a name that is no UTF-8 are kept.
        temp.write_text(out.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")


@dataclass(frozen=True)
class Predictions:
    """A file of answers; `keys` are (hash of the samples, fold)."""

    name: str
    keys: tuple[tuple[str, str], ...]
    speakers: tuple[str, ...]
    truth: tuple[str, ...]
    answers: tuple[str, ...]


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
    missing = set(_COLUMNS) - set(columns)
    if missing:
        raise DataError(
            f"{name} is no file of predictions: no column {', '.join(sorted(missing))}", _HOW_MADE
        )
    if not rows:
        raise DataError(f"{name} holds no prediction")
    if any(row[column] is None for row in rows for column in _COLUMNS):
        raise DataError(f"{name} is damaged: a line is too short", "Make it anew")
    return Predictions(
        name,
        tuple((row["key"], row["fold"]) for row in rows),
        tuple(row["speaker"] for row in rows),
        tuple(row["truth"] for row in rows),
        tuple(row["answer"] for row in rows),
    )


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
    """Compare two sets of answers, clip by clip, whose order may differ; `seed` is the bootstrap's.

    Raises DataError where they are not about the same clips and folds.
    """
    if len(set(a.keys)) < len(a.keys) or len(set(b.keys)) < len(b.keys):
        raise DataError("a clip stands twice in the same fold of one file", "Make the files anew")
    if set(a.keys) != set(b.keys):
        raise DataError(
            f"{a.name} and {b.name} are about different clips or folds: {len(a.keys)} and {len(b.keys)} "
            f"answers, {len(set(a.keys) & set(b.keys))} in common",
            "Evaluate both with the same data, protocol and seed",
        )
    order = {key: i for i, key in enumerate(b.keys)}
    at = [order[key] for key in a.keys]
    if any(a.truth[i] != b.truth[j] for i, j in enumerate(at)):
        raise DataError(f"{a.name} and {b.name} disagree about the labels of the clips")
    right_a = np.array([truth == answer for truth, answer in zip(a.truth, a.answers, strict=True)])
    right_b = np.array([b.truth[j] == b.answers[j] for j in at])
    gain = right_b.astype(float) - right_a.astype(float)
    speakers = np.array(a.speakers)
    by_speaker = {name: float(gain[speakers == name].mean()) for name in sorted(set(a.speakers) - {""})}
    ci95 = _interval(gain, a.speakers, seed) if len(by_speaker) >= MIN_SPEAKERS else None
    low, high = ci95 or (0.0, 0.0)
    return Comparison(
        a.name,
        b.name,
        len(a.keys),
        float(right_a.mean()),
        float(right_b.mean()),
        int((gain < 0).sum()),
        int((gain > 0).sum()),
        float(gain.mean()),
        by_speaker,
        ci95,
        "b" if low > 0 else "a" if high < 0 else None,
    )


def _interval(gain: NDArray[np.float64], speakers: tuple[str, ...], seed: int) -> tuple[float, float]:
    """Bootstrap over speakers (over clips where no speaker is known) of the mean gain."""
    unit_of_clip = bootstrap_groups(speakers)
    sums, counts = np.bincount(unit_of_clip, weights=gain), np.bincount(unit_of_clip)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(_DRAWS, len(sums)))
    means: NDArray[Any] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
