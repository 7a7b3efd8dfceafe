"""Protocols, fold by fold, on features that say the label outright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import told, trained_with

from speechemo_cli.corpus.folds import PROTOCOLS
from speechemo_cli.evaluation import protocols
from speechemo_cli.models import training


# The larger ones differ in their folds alone, which test_folds.py looks at.
@pytest.mark.parametrize("protocol", ["random-holdout", "twin-safe-5fold", "speaker-5fold"])
def test_a_protocol_scores_every_fold_and_says_what_it_means(protocol: str, rng: np.random.Generator) -> None:
    data = told(rng)

    result = protocols.run_protocol("v1", protocol, data, trained_with(epochs=20))

    assert result.protocol is PROTOCOLS[protocol]
    assert sum(fold.scores.n for fold in result.folds) == result.pooled.n
    assert result.pooled.n == 180  # five draws of a fifth, or five folds
    assert result.pooled.accuracy > 0.85
    assert all(bool(fold.test_speakers) != result.protocol.shares_speakers for fold in result.folds)
    assert len(result.truth) == len(result.examples) == len(result.probabilities) == 180


def test_spread_is_mean_deviation_and_pooled(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "random-5fold", told(rng, speakers=3), trained_with(epochs=2))

    values = [fold.scores.accuracy for fold in result.folds]
    assert result.spread("accuracy") == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "pooled": result.pooled.accuracy,
        "ci95": list(result.intervals["accuracy"]),
    }


def test_slices_are_scores_of_their_clips(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "random-5fold", told(rng, speakers=4), trained_with(epochs=2))

    assert set(result.slices) == {"speaker", "gender", "intensity", "statement"}
    assert sum(scores.n for scores in result.slices["speaker"].values()) == result.pooled.n
    men = np.array([example.clip.gender == "m" for example in result.examples])
    right = result.probabilities.argmax(axis=1) == result.truth
    assert result.slices["gender"]["m"].accuracy == pytest.approx(right[men].mean())


def test_a_killed_run_goes_on_at_the_fold_it_was_in(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = told(rng), trained_with(epochs=2)
    whole = protocols.run_protocol("v1", "random-5fold", data, config)
    kept = sorted(Path("runs").iterdir())
    kept[3].unlink()
    kept[4].write_bytes(kept[4].read_bytes()[:100])  # a fold that is not whole is trained again
    fitted, real = [], training.fit

    def fit(*arguments: object, **more: object) -> object:
        fitted.append(arguments[5])
        return real(*arguments, **more)

    monkeypatch.setattr(training, "fit", fit)
    again = protocols.run_protocol("v1", "random-5fold", data, config)

    assert fitted == [3, 4]
    assert np.array_equal(again.probabilities, whole.probabilities)
    assert [fold.history for fold in again.folds] == [fold.history for fold in whole.folds]


@pytest.mark.parametrize("change", [{"epochs": 3}, {"dropout": 0.3}, {"learning_rate": 0.01}])
def test_other_settings_begin_anew(change: dict, rng: np.random.Generator) -> None:
    data = told(rng, speakers=3)
    protocols.run_protocol("v1", "speaker-5fold", data, trained_with(epochs=2))
    protocols.run_protocol("v1", "speaker-5fold", data, trained_with(**{"epochs": 2, **change}))

    assert len(list(Path("runs").iterdir())) == 6
