"""Look into a model file's speechemo.json: every value is of the kind that `train` writes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from speechemo_cli.corpus.labels import MAX_LABELS, is_label
from speechemo_cli.models.preflight import CARD, HOSTILE, UnfitError, short

if TYPE_CHECKING:
    from speechemo_cli.features import FeatureSet

# Samples that are transformed and numbers that are kept for a second of a clip, and numbers in a filter
# bank. The features of v3 take 153,600, 25,600 and 262,144; much more makes a short clip a long wait.
_MAX_TRANSFORMED, _MAX_KEPT, _MAX_FILTERS = 2**22, 2**18, 2**23
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000 and value.isprintable()


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _labels(value: Any) -> bool:
    return _texts(value) and len(set(value)) == len(value) <= MAX_LABELS and all(map(_label, value))


def _label(value: str) -> bool:
    return is_label(value) and value == value.strip()


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value))


def _number_or_null(value: Any) -> bool:
    return value is None or _number(value)


def _factor_or_null(value: Any) -> bool:
    return value is None or (_number(value) and value > 0)


def _sha256_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _SHA256.fullmatch(value) is not None)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


# A list stands for lists of what is in it, a tuple for that or null, `*` for every name, `?` for a name
# that older files, or other trainings, do not have. What stands nowhere here is not read.
_SCORES = {"n": _count, "accuracy": _number, "uar": _number}
_SPREAD = {"pooled": _number, "ci95": _interval}
_MEASURED = {
    **dict.fromkeys(("accuracy", "uar", "macro_f1", "nll", "brier", "ece"), _SPREAD),
    "version": _word,
    "protocol": _word,
    "meaning": _word,
    "n_answers": _count,
    "folds": [{}],
    "per_class": {"*": {"n": _count, "precision": _number_or_null, "recall": _number_or_null}},
    "slices": {"*": {"*": _SCORES}},
    "reliability": [{"confidence": _number, "accuracy": _number}],
}
_KINDS = {
    "version": _word,
    "labels": _labels,
    "feature_set": _word,
    "feature_version": _count,
    "config": {},
    "seed": _count,
    "epochs": _count,
    "parameters?": _count,
    "temperature?": _factor_or_null,
    "twin?": _sha256_or_null,
    "versions?": {"*": _word},
    "data?": {
        "train?": _texts,
        "train_samples?": _texts,
        "seen_speakers?": _texts,
        "new_speakers?": _texts,
        "speakers?": _texts,
        "corpora?": {"*": {"clips": _count, "of_unknown_speakers": _count}},
        "clips?": {"*": {"spoken": _count, "sung": _count}},
        "longest_s?": _number_or_null,
        "ravdess?": _flag,
    },
    "results?": {
        "test?": {"seen_speakers?": (_SCORES,), "new_speakers?": ({**_SCORES, "speakers": _texts},)},
        "cross_validated?": (_MEASURED,),
    },
}


def check(document: dict[str, Any]) -> None:
    """Refuse a card with a value of another kind: whoever reads it relies on them.

    Parameters
    ----------
    document : dict
        What `speechemo.json` holds.

    Raises
    ------
    UnfitError
        Names the first such value.
    """
    where = _misfit(document, _KINDS, "")
    if where is not None:
        raise UnfitError(f"is damaged: {CARD} does not fit ({short(where)})")


def check_features(features: FeatureSet, section: Any) -> None:
    """Refuse features that would take minutes or gigabytes of an ordinary clip.

    Parameters
    ----------
    features : FeatureSet
    section : object
        Its part of the config, each value by itself within its bounds.

    Raises
    ------
    UnfitError
    """
    frames_per_s = section.sr / section.hop_length
    window, width = features.window(section), max(features.dim(section), section.n_mels)
    if (
        frames_per_s * window > _MAX_TRANSFORMED
        or frames_per_s * width > _MAX_KEPT
        or window * width > _MAX_FILTERS
    ):
        raise UnfitError(
            f"asks for features that take too much: {frames_per_s:.0f} frames a second"
            f" of {window} samples and {width} numbers",
            HOSTILE,
        )


def _misfit(value: Any, kind: Any, where: str) -> str | None:
    """Say where a value is not of its kind; None where all is well."""
    if isinstance(kind, tuple):
        return None if value is None else _misfit(value, kind[0], where)
    if isinstance(kind, list):
        if not isinstance(value, list):
            return where
        inner = ((one, kind[0], where) for one in value)
    elif isinstance(kind, dict):
        if not isinstance(value, dict):
            return where
        inner = _named(value, kind, where)
    else:
        return None if kind(value) else where
    return next((found for one in inner if (found := _misfit(*one)) is not None), None)


def _named(value: dict[str, Any], kinds: dict[str, Any], where: str) -> Any:
    """Yield what is in an object, with the kind it has to be of."""
    for name, kind in kinds.items():
        if name == "*":
            yield from ((one, kind, f"{where}.{key}".lstrip(".")) for key, one in value.items())
            continue
        key = name.removesuffix("?")
        if key in value or key == name:
            yield value.get(key), kind, f"{where}.{key}".lstrip(".")
