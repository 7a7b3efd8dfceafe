"""What other recording conditions cost: the same test clips, louder, noisy, through a telephone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.features.conditions import CONDITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.evaluation.metrics import Scores
    from speechemo_cli.features.dataset import Dataset


def feature_sets(feature_set: str) -> tuple[str, ...]:
    """Names of the sets that hold the features of clips under each condition."""
    return tuple(f"{feature_set}@{name}" for name in CONDITIONS)


def of(data: Dataset) -> dict[str, NDArray[np.float32]]:
    """Features of the clips of a data set by condition, for those that were loaded with it."""
    return {name.partition("@")[2]: rows[:, 0] for name, rows in data.others.items() if "@" in name}


def without(data: Dataset) -> Dataset:
    """Return the same clips without their features by condition, which only a test needs."""
    return replace(data, others={name: rows for name, rows in data.others.items() if "@" not in name})


def to_dict(scores: Mapping[str, Scores], plain: Scores) -> dict[str, Any]:
    """Return what JSON has: scores by condition, and the cost in accuracy against the clips as they are."""
    if not scores:
        return {}
    return {
        "conditions": {
            name: {
                "title": CONDITIONS[name].title,
                "n": one.n,
                "accuracy": one.accuracy,
                "uar": one.uar,
                "cost": plain.accuracy - one.accuracy,
            }
            for name, one in scores.items()
        }
    }


def rows(scores: Mapping[str, Scores], plain: Scores) -> list[tuple[str, float, float, float]]:
    """Title, accuracy, UAR and cost in accuracy of each condition, for tables."""
    return [
        (CONDITIONS[name].title, one.accuracy, one.uar, plain.accuracy - one.accuracy)
        for name, one in scores.items()
    ]
