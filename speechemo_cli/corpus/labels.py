"""The emotions and their one order; the words other corpora use for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# The order of RAVDESS's emotion codes 01 ... 08 (Livingstone & Russo 2018, table 1).
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

# More classes than any corpus of emotions, fewer than a folder for each file.
MAX_LABELS = 1000
_MAX_LABEL_LENGTH = 100

# The columns of docs/formats.md, beside which every label has one of its own; and what is no label.
RESERVED = frozenset(
    (
        "uncertain",
        *("path", "status", "label", "confidence", "duration_s", "warnings", "error", "channel", "sha256"),
        *("key", "start_s", "end_s", "speech_share"),
    )
)

_SYNONYMS = {
    "neutrality": "neutral",
    "calmness": "calm",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
    "pleasant_surprise": "surprised",
    "ps": "surprised",
}


def canonical(word: str) -> str:
    """Return the label for a word: `Anger` -> `angry`; a word this package does not know stays itself.

    Parameters
    ----------
    word : str
        A folder name or a label of a manifest.

    Returns
    -------
    str
        Lower case, trimmed.
    """
    label = word.strip().lower()
    return _SYNONYMS.get(label, label)


def is_emotion(word: str) -> bool:
    """Whether a word names one of the eight emotions."""
    return canonical(word) in EMOTIONS


def is_label(word: str) -> bool:
    """Whether a word can be a label: it fits on one line of a table, and stands for nothing else there."""
    return 0 < len(word) <= _MAX_LABEL_LENGTH and word.isprintable() and word not in RESERVED


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels in the one order: the eight emotions first, others by the alphabet."""
    distinct = set(labels)
    known = [label for label in EMOTIONS if label in distinct]
    return (*known, *sorted(distinct - set(EMOTIONS)))
