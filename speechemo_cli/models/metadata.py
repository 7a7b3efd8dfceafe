"""The metadata of a model file (speechemo.json): what it says of itself, every value checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.config import Config
from speechemo_cli.corpus import MAX_LABELS, is_label
from speechemo_cli.errors import ConfigError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import VERSIONS, version_module
from speechemo_cli.models.archive import HOSTILE, METADATA, UnfitError, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Samples that are transformed and numbers that are kept for a second of a clip, and numbers in a filter
# bank. The features of v1 and v2 take 88,200, 5,513 and 262,144; much more makes a short clip a long wait.
_MAX_TRANSFORMED, _MAX_KEPT, _MAX_FILTERS = 2**22, 2**18, 2**23


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says of itself, besides the weights."""

    version: str
    labels: tuple[str, ...]  # the class of each output, in order
    feature_set: str
    feature_version: int
    config: dict[str, Any]  # all of it, as the training resolved it
    seed: int
    epochs: int
    # Of Python and the libraries that trained it.
    versions: dict[str, str] = field(default_factory=dict)
    # Hashes of the clips by the part they played: `model_file.PARTS_OF_DATA` (`train_samples`: of the decoded
    # samples, missing in older files). Ids of the speakers it was trained on: `speakers`. Numbers of clips:
    # `corpora`, and by label `clips`. The length of the longest:
    # `longest_s`. Whether all are named as RAVDESS names its own: `ravdess`.
    data: dict[str, Any] = field(default_factory=dict)
    # Scores on the held-out clips, as `train` printed them.
    results: dict[str, Any] = field(default_factory=dict)
    # One value an epoch: `train_accuracy`, `train_loss` (nats), and the same of `seen` and `new`, the
    # held-out clips of seen and unseen speakers. Empty in an older file, as `parameters` are 0 there.
    history: dict[str, list[float]] = field(default_factory=dict)
    # What the network's confidences were corrected by: its last layer is divided by it already.
    temperature: float | None = None
    # Weights of the network.
    parameters: int = 0
    # SHA-256 of the LiteRT file of the same network.
    litert: str | None = None
    # A clip whose features are further than this from those of the training is unlike the training.
    unlike: float | None = None
    # Of the `speechemo.json` that it was read from. As that names the SHA-256 of every other part, it
    # stands for the whole model file. Empty where it was read from none.
    sha256: str = field(default="", compare=False)

    def resolved_config(self) -> Config:
        """Return the config of the training."""
        return Config.from_dict(self.config, "model file")

    def adopt(self, config: Config) -> Config:
        """Return this run's config with the feature part the model was trained with."""
        return replace(config, mfcc=self.resolved_config().mfcc)

    @classmethod
    def from_document(cls, document: dict[str, Any], sha256: str) -> ModelMetadata:
        """Read what `speechemo.json` holds, whose SHA-256 is given; UnfitError where a value does not fit."""
        where = next(_misfits(document, _KINDS, ""), None)
        if where is not None:
            raise UnfitError(f"is damaged: {METADATA} does not fit ({short(where)})")
        known = {key: document[key] for key in cls.__dataclass_fields__ if key in document}
        metadata = cls(**{**known, "labels": tuple(document["labels"]), "sha256": sha256})
        if metadata.version not in VERSIONS:
            raise UnfitError(
                f"holds a network of version {short(repr(metadata.version))}, "
                f"known are {', '.join(VERSIONS)}",
                "Update speechemo, or train it again",
            )
        if metadata.feature_set != version_module(metadata.version).PRESET.feature_set:
            raise UnfitError(f"is damaged: {METADATA} does not fit (feature_set)")
        features = FEATURE_SETS[metadata.feature_set]
        try:
            check_features(metadata.feature_set, metadata.resolved_config())
        except ConfigError as error:
            raise UnfitError(f"is damaged: {METADATA} does not fit ({short(error, 200)})") from None
        if metadata.feature_version != features.version:
            raise UnfitError(
                f"expects version {metadata.feature_version} of the {metadata.feature_set} features, "
                f"this speechemo computes version {features.version}",
                "Train it again",
            )
        return metadata


def check_features(feature_set: str, config: Config) -> None:
    """Refuse (UnfitError) features that would take minutes or gigabytes of an ordinary clip."""
    if feature_set != "mfcc":
        return  # nothing of the others can be chosen but the number of copies, which has a bound
    section = config.mfcc
    frames_per_s = section.sr / section.hop_length
    if (
        frames_per_s * section.n_fft > _MAX_TRANSFORMED
        or frames_per_s * section.n_mels > _MAX_KEPT
        or section.n_fft * section.n_mels > _MAX_FILTERS
    ):
        raise UnfitError(
            f"asks for features that take too much: {frames_per_s:.0f} frames a second"
            f" of {section.n_fft} samples and {section.n_mels} numbers",
            HOSTILE,
        )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _labels(value: Any) -> bool:
    if not _texts(value) or not len(set(value)) == len(value) <= MAX_LABELS:
        return False
    return all(is_label(one) and one == one.strip() for one in value)


def _interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_PLAIN[float], value))


def _factor(value: Any) -> bool:
    return _PLAIN[float](value) and value > 0


# What can be shown on one line, a count, a finite number and a truth.
_PLAIN: dict[type, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str) and len(value) <= 1000 and value.isprintable(),
    int: lambda value: type(value) is int and 0 <= value < 2**53,
    float: lambda value: type(value) in (int, float) and math.isfinite(value),
    bool: lambda value: isinstance(value, bool),
}
# A list stands for lists of what is in it, a tuple for that or null, `*` for every name, `?` for a name
# that older files, or other trainings, do not have. What stands nowhere here is not read.
_SCORES = {"n": int, "accuracy": float, "uar": float}
_SPREAD = {"pooled": float, "ci95": (_interval,)}
_MEASURED = {
    **dict.fromkeys(("accuracy", "uar", "macro_f1", "nll", "brier", "ece"), _SPREAD),
    "version": str,
    "protocol": str,
    "meaning": str,
    "no_interval?": str,
    "corpora?": {"trained_on": _texts, "tested": _texts},
    "n_answers": int,
    "folds": [{}],
    "per_class": {"*": {"n": int, "precision": (float,), "recall": (float,)}},
    "slices": {"*": {"*": _SCORES}},
    "reliability": [{"confidence": float, "accuracy": float}],
}
_KINDS = {
    "version": str,
    "labels": _labels,
    "feature_set": str,
    "feature_version": int,
    "config": {},
    "seed": int,
    "epochs": int,
    "parameters?": int,
    "temperature?": (_factor,),
    "litert?": (lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,),
    "unlike?": (_factor,),
    "versions?": {"*": str},
    "data?": {
        "train?": _texts,
        "train_samples?": _texts,
        "seen_speakers?": _texts,
        "new_speakers?": _texts,
        "speakers?": _texts,
        "corpora?": {"*": {"clips": int, "of_unknown_speakers": int}},
        "clips?": {"*": {"spoken": int, "sung": int}},
        "longest_s?": (float,),
        "ravdess?": bool,
    },
    "history?": {"*": [float]},
    "results?": {
        "test?": {"seen_speakers?": (_SCORES,), "new_speakers?": ({**_SCORES, "speakers": _texts},)},
        "cross_validated?": (_MEASURED,),
        "other_corpora?": {"*": {**_SCORES, "labels": _texts, "unlike": (float,)}},
    },
}


def _misfits(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Say where values are not of their kind."""
    if isinstance(kind, tuple):
        if value is not None:
            yield from _misfits(value, kind[0], where)
    elif isinstance(kind, list) and isinstance(value, list):
        for one in value:
            yield from _misfits(one, kind[0], where)
    elif isinstance(kind, dict) and isinstance(value, dict):
        for name, inner in kind.items():
            key = name.removesuffix("?")
            found = {key: value.get(key)} if key in value or key == name else {}
            for each, one in (value if name == "*" else found).items():
                yield from _misfits(one, inner, f"{where}.{each}".lstrip("."))
    elif isinstance(kind, list | dict) or not _PLAIN.get(kind, kind)(value):
        yield where
