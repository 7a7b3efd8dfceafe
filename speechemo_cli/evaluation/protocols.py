"""Train and score by a protocol, fold by fold, going on where a killed run stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.folds import PROTOCOLS, Fold, Protocol, folds
from speechemo_cli.evaluation.metrics import Scores, intervals, score
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import atomic_path
from speechemo_cli.models import Preset, training, version_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.features.dataset import Dataset

# (stage, epochs done, epochs, values of the epoch)
OnEpoch = Callable[[str, int, int, Mapping[str, float]], None]

# What a clip can be grouped by, where its layout tells.
SLICES = ("speaker", "gender", "intensity", "statement")


@dataclass(frozen=True)
class FoldResult:
    """One fold: who was tested, what was answered, how the training went.

    Attributes
    ----------
    name : str
    test_speakers : tuple of str
        Empty where the protocol shares speakers.
    test : np.ndarray [shape=(n,), dtype=int64]
        Positions of the test clips in the data set.
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    history : dict of str to list of float
        Accuracy and loss on the training clips, one value an epoch.
    scores : Scores
    seconds : float
        Of the training; what it took then, where the fold was done by an earlier run.
    """

    name: str
    test_speakers: tuple[str, ...]
    test: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    history: dict[str, list[float]]
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class ProtocolResult:
    """Scores of a version under a protocol.

    Attributes
    ----------
    version : str
    protocol : Protocol
    labels : tuple of str
    epochs, seed : int
    folds : tuple of FoldResult
    examples : tuple of Example
        The tested clip of each answer, fold after fold.
    truth : np.ndarray [shape=(n,), dtype=int64]
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    """

    version: str
    protocol: Protocol
    labels: tuple[str, ...]
    epochs: int
    seed: int
    folds: tuple[FoldResult, ...]
    examples: tuple[Example, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def pooled(self) -> Scores:
        """Scores of the answers of all folds together."""
        return score(self.truth, self.probabilities, self.labels)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each pooled metric, by bootstrap over speakers."""
        return intervals(self.truth, self.probabilities, [e.clip.speaker for e in self.examples])

    def spread(self, metric: str) -> dict[str, Any]:
        """Mean and standard deviation over the folds, the pooled value and its 95 % interval."""
        values = np.array([getattr(fold.scores, metric) for fold in self.folds])
        return {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "pooled": float(getattr(self.pooled, metric)),
            "ci95": list(self.intervals[metric]),
        }

    @cached_property
    def slices(self) -> dict[str, dict[str, Scores]]:
        """Scores by speaker, gender, intensity and statement, where the layout tells."""
        found: dict[str, dict[str, Scores]] = {}
        for name in SLICES:
            of_clip = np.array([str(getattr(e.clip, name) or "") for e in self.examples])
            for value in sorted(set(of_clip.tolist()) - {""}):
                at = of_clip == value
                one = score(self.truth[at], self.probabilities[at], self.labels)
                found.setdefault(name, {})[value] = one
        return found


def preset_of(version: str, config: Config) -> Preset:
    """Return what a version is trained with under a config."""
    preset: Preset = version_module(version).PRESET
    return preset.with_config(config.train)


def run_protocol(
    version: str, protocol: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> ProtocolResult:
    """Train and score a version once a fold. Epochs are fixed by the preset; no fold picks them.

    Each finished fold is kept in `config.runs`, under a key of everything that decides its answers.
    A run that was killed goes on at the fold it was in; one with other clips, features or settings
    begins anew.

    Raises
    ------
    DataError
        The clips do not allow this protocol.
    LeakError
        A test would leak into its training.
    AccessError
        `config.runs` cannot be written.
    """
    preset = preset_of(version, config)
    plan = folds(data.examples, protocol, config.seed)
    results = []
    for fold in plan:
        path = (
            Path(config.runs)
            / f"{version}-{protocol}-{fold.name}-{_fold_key(version, preset, fold, data, config)}.npz"
        )
        stored = _read_fold(path, (len(fold.test), len(data.labels)))
        if stored is None:
            stored = _train_fold(version, preset, fold, data, f"fold {fold.name} of {len(plan)}", on_epoch)
            _write_fold(path, *stored)
        probabilities, history, seconds = stored
        scores = score(data.targets[fold.test], probabilities, data.labels)
        results.append(
            FoldResult(fold.name, fold.test_speakers, fold.test, probabilities, history, scores, seconds)
        )
    order = np.concatenate([result.test for result in results])
    return ProtocolResult(
        version,
        PROTOCOLS[protocol],
        data.labels,
        preset.epochs,
        config.seed,
        tuple(results),
        tuple(data.examples[i] for i in order),
        data.targets[order],
        np.concatenate([result.probabilities for result in results]),
    )


_Stored = tuple["NDArray[np.float32]", dict[str, list[float]], float]


def _train_fold(
    version: str, preset: Preset, fold: Fold, data: Dataset, stage: str, on_epoch: OnEpoch | None
) -> _Stored:
    started = time.perf_counter()
    trained = training.fit(
        version,
        preset,
        data.x[fold.train],
        data.targets[fold.train],
        len(data.labels),
        fold.seed,
        on_epoch=(lambda *values: on_epoch(stage, *values)) if on_epoch else None,
    )
    probabilities = training.predict(trained.model, data.x[fold.test])
    return probabilities, trained.history, time.perf_counter() - started


def _fold_key(version: str, preset: Preset, fold: Fold, data: Dataset, config: Config) -> str:
    """Hash what decides a fold's answers: network, settings, features, clips with labels, seed."""
    network = version_module(version)
    sources = [Path(network.__file__), *(Path(module.__file__) for module in getattr(network, "PARTS", ()))]
    part = {
        "network": [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources],
        "preset": asdict(preset),
        "features": FEATURE_SETS[preset.feature_set].fingerprint(config),
        "labels": data.labels,
        "train": [(data.examples[i].key, data.examples[i].clip.label) for i in fold.train],
        "test": [data.examples[i].key for i in fold.test],
        "seed": fold.seed,
    }
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def _read_fold(path: Path, shape: tuple[int, int]) -> _Stored | None:
    """Read what an earlier run kept; None where there is nothing, or nothing whole."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            probabilities = stored["probabilities"]
            history = json.loads(str(stored["history"]))
            seconds = float(stored["seconds"])
    except Exception:
        return None  # whatever is wrong with it, the fold can be trained again
    return (probabilities, history, seconds) if probabilities.shape == shape else None


def _write_fold(path: Path, probabilities: Any, history: dict[str, list[float]], seconds: float) -> None:
    with atomic_path(path) as temp, temp.open("wb") as handle:
        np.savez(
            handle,
            probabilities=probabilities,
            history=np.array(json.dumps(history)),
            seconds=np.array(seconds),
        )
