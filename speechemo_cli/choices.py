"""What there is to choose between, for options and for the library."""

from __future__ import annotations

from enum import StrEnum


class Version(StrEnum):
    """Versions of the network; each is a module of `models`."""

    v1 = "v1"
    v2 = "v2"
    v3 = "v3"


class Channel(StrEnum):
    """Channels of a file: their mean, one of two, or each."""

    mix = "mix"
    left = "left"
    right = "right"
    each = "each"


class Runtime(StrEnum):
    """What runs a network."""

    auto = "auto"
    litert = "litert"
    keras = "keras"


class Split(StrEnum):
    """What a training holds out: whole speakers and clips, clips alone, or nothing."""

    both = "both"
    random = "random"
    none = "none"


class Protocol(StrEnum):
    """How a version is evaluated; `corpus.folds` has the rules of each."""

    random_holdout = "random-holdout"
    random_5fold = "random-5fold"
    random_10fold = "random-10fold"
    twin_safe_5fold = "twin-safe-5fold"
    speaker_5fold = "speaker-5fold"
    speaker_6fold = "speaker-6fold"
    loso = "loso"


class Layout(StrEnum):
    """Names and folders of a synthetic corpus."""

    ravdess = "ravdess"
    tess = "tess"
    crema_d = "crema-d"
    emo_db = "emo-db"
    folders = "folders"


class DocumentFormat(StrEnum):
    """Formats of one document."""

    table = "table"
    json = "json"


class AnswerFormat(StrEnum):
    """Formats of the answers for clips."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    label = "label"


class TimelineFormat(StrEnum):
    """Formats of the timelines of recordings."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"
    srt = "srt"
    audacity = "audacity"
    rttm = "rttm"


class ExportFormat(StrEnum):
    """Formats of an exported model."""

    litert = "litert"
    onnx = "onnx"
    savedmodel = "savedmodel"
