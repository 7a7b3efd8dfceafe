"""What there is to choose between, for options and for the library."""

from __future__ import annotations

from enum import StrEnum

# Versions of the network; each is a module of `models`.
Version = StrEnum("Version", ["v1", "v2", "v3"])
# Channels of a file: their mean, one of two, or each.
Channel = StrEnum("Channel", ["mix", "left", "right", "each"])
# What runs a network.
Runtime = StrEnum("Runtime", ["auto", "litert", "keras"])
# Where the work is done: on this machine, or on a cluster.
Backend = StrEnum("Backend", ["loky", "dask"])
# What a training holds out: whole speakers and clips, clips alone, or nothing.
Split = StrEnum("Split", ["both", "random", "none"])
# How a version is evaluated; `corpus.splits` has the rules of each.
Protocol = StrEnum(
    "Protocol",
    {
        "random_holdout": "random-holdout",
        "random_5fold": "random-5fold",
        "random_10fold": "random-10fold",
        "twin_safe_5fold": "twin-safe-5fold",
        "speaker_5fold": "speaker-5fold",
        "speaker_6fold": "speaker-6fold",
        "loso": "loso",
    },
)
# Names and folders of a synthetic corpus.
Layout = StrEnum(
    "Layout",
    {"ravdess": "ravdess", "tess": "tess", "crema_d": "crema-d", "emo_db": "emo-db", "folders": "folders"},
)
# How one document, the answers for clips, timelines and models are written.
DocumentFormat = StrEnum("DocumentFormat", ["table", "json"])
AnswerFormat = StrEnum("AnswerFormat", ["table", "json", "jsonl", "csv", "label"])
TimelineFormat = StrEnum("TimelineFormat", ["table", "json", "jsonl", "csv", "srt", "audacity", "rttm"])
ExportFormat = StrEnum("ExportFormat", ["litert", "onnx", "savedmodel"])
