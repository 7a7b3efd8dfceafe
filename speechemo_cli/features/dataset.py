"""From labelled clips to arrays: extract what is missing, keep distinct recordings, read them back.

Also as a table for other tools: scikit-learn, pandas, spreadsheets.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.config import Config
from speechemo_cli.corpus import ordered
from speechemo_cli.corpus.clips import Collection
from speechemo_cli.corpus.layouts import find_all
from speechemo_cli.corpus.splits import Example, distinct
from speechemo_cli.errors import ClipError, ConfigError, DataError, NoInputError, StoreError
from speechemo_cli.features.extraction import Extraction, OnProgress, extract
from speechemo_cli.features.store import FeatureStore, StoredFeatures
from speechemo_cli.files import atomic_path, display_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.corpus.splits import Positions


@dataclass(frozen=True)
class Dataset:
    """Labelled features of distinct recordings: `x` [shape=(clips, ...)] and `targets` [shape=(clips,)].

    Targets are positions in `labels`; `others` has further sets of the same clips [shape=(clips, rows, dim)].
    `near_copies` are pairs of nearly the same recording, also with clips the set was loaded `beside`.
    """

    examples: tuple[Example, ...]
    x: NDArray[np.float32]
    targets: NDArray[np.int64]
    labels: tuple[str, ...]
    extraction: Extraction
    durations_s: NDArray[np.float64]
    others: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    near_copies: tuple[tuple[Example, Example], ...] = ()

    @cached_property
    def corpora(self) -> NDArray[np.str_]:
        """Corpus of each clip [shape=(clips,)]."""
        return np.array([example.clip.corpus for example in self.examples], dtype=np.str_)

    @property
    def by_condition(self) -> dict[str, NDArray[np.float32]]:
        """Features under other recording conditions, by condition, for those that were loaded with it."""
        return {name.partition("@")[2]: rows[:, 0] for name, rows in self.others.items() if "@" in name}

    def without_conditions(self) -> Dataset:
        """Return the same clips without their features by condition, which only a test needs."""
        return replace(self, others={name: rows for name, rows in self.others.items() if "@" not in name})

    def subset(self, positions: Positions) -> Dataset:
        """Return the clips at some positions, with the same list of labels."""
        return replace(
            self,
            examples=tuple(self.examples[i] for i in positions),
            x=self.x[positions],
            targets=self.targets[positions],
            durations_s=self.durations_s[positions],
            others={name: rows[positions] for name, rows in self.others.items()},
        )


def load(
    clips: Sequence[Clip],
    config: Config,
    feature_set: str,
    labels: Sequence[str] | None = None,
    others: Sequence[str] = (),
    on_progress: OnProgress | None = None,
    beside: Dataset | None = None,
) -> Dataset:
    """Bring the features of some clips into memory, extracting what the store lacks.

    `feature_set` has one row a clip; `others` are further sets of the same clips. Targets count in `labels`,
    by default those that occur. Near copies are looked for among the clips of `beside` too. It raises a
    NoInputError where not one clip can be used, a DataError for a clip whose label is not in `labels`, and a
    StoreError where damaged shards cannot be renamed.
    """
    known = tuple(labels) if labels is not None else ordered(clip.label for clip in clips)
    foreign = ordered({clip.label for clip in clips} - set(known))
    if foreign:
        raise DataError(f"clips are labelled {', '.join(foreign)}, expected {', '.join(known)}")
    extraction, stored = _extract_and_read(clips, config, (feature_set, *others), on_progress)
    examples = _distinct(clips, extraction, stored[feature_set])
    entries = [stored[feature_set][example.sha256] for example in examples]
    if labels is None:  # a label whose clips all failed is none
        known = ordered(example.clip.label for example in examples)
    x = np.concatenate([entry.values for entry in entries])
    compared = [*examples, *beside.examples] if beside else examples
    rows = np.concatenate([x, beside.x]) if beside else x
    return Dataset(
        examples=tuple(examples),
        x=x,
        targets=np.array([known.index(example.clip.label) for example in examples], dtype=np.int64),
        labels=known,
        extraction=extraction,
        durations_s=np.array([entry.duration_s for entry in entries]),
        others={
            name: np.stack([stored[name][example.sha256].values for example in examples]) for name in others
        },
        near_copies=tuple((compared[i], compared[j]) for i, j in near_copies(rows, feature_set)),
    )


# Least cosine of the standardised features of near copies. Measured on 1,200 clips of RAVDESS, 100 of them
# also as MP3, Ogg Vorbis and Opus as soundfile writes these, and cut by 3 samples or by 50 ms at either end.
# whisper: copies 0.915 to 1, two recordings of a sentence by an actor at most 0.847. mfcc tells less: trimmed
# copies at least 0.993, nine in ten MP3 and half of the Ogg files above this; other recordings at most 0.982,
# of synthetic voices 0.991.
_NEAR = {"whisper": 0.9, "mfcc": 0.992}
# Multiplications that take about half a minute on two cores: 18,000 clips of `whisper`, 150,000 of `mfcc`.
_MAX_PRODUCTS = 1e12
_BLOCK = 1024


def near_copies(x: NDArray[np.float32], feature_set: str) -> list[tuple[int, int]]:
    """Find clips whose features are so near that they are the same recording: encoded anew, or trimmed.

    Positions in `x` [shape=(clips, dim)], the lower first; none where so many clips would take too long.
    """
    if len(x) ** 2 * x.shape[1] > _MAX_PRODUCTS:
        return []
    z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    z /= np.linalg.norm(z, axis=1, keepdims=True) + 1e-6
    pairs = []
    for start in range(0, len(z), _BLOCK):
        cosines = z[start : start + _BLOCK] @ z[start:].T
        for i, j in np.argwhere(cosines > _NEAR[feature_set]).tolist():
            if i < j:
                pairs.append((start + i, start + j))
    return pairs


def _extract_and_read(
    clips: Sequence[Clip], config: Config, sets: Sequence[str], on_progress: OnProgress | None
) -> tuple[Extraction, dict[str, dict[str, StoredFeatures]]]:
    """Return what each set holds of the clips, by their content."""
    damaged: list[str] = []
    # Damage in values shows only when they are read. The shard has another name then, so that the second
    # time its clips are computed anew.
    for _ in range(2):
        extraction = extract(clips, config, sets, on_progress)
        stores = {name: FeatureStore.open(name, config) for name in sets}
        wanted = set(extraction.keys.values())
        stored = {name: store.read(wanted) for name, store in stores.items()}
        damaged += extraction.damaged
        damaged += (shard for store in stores.values() for shard in store.damaged)
        extraction.damaged = list(dict.fromkeys(damaged))
        n_lost = len(wanted) - min(map(len, stored.values()))
        if not n_lost:
            return extraction, stored
    raise StoreError(
        f"{n_lost} clips could not be read back from {display_name(config.store)}"
        f" (damaged: {', '.join(extraction.damaged) or 'nothing'})",
        "Remove what is damaged, or give another folder with --store",
    )


def _distinct(
    clips: Sequence[Clip], extraction: Extraction, stored: Mapping[str, StoredFeatures]
) -> list[Example]:
    """Keep one clip of each recording: copies in other formats have the same samples."""
    samples = {path: stored[sha256].samples_sha256 for path, sha256 in extraction.keys.items()}
    examples, conflicts = distinct(clips, samples, extraction.keys)
    extraction.failed += [ClipError(name, "the same recording stands under two labels") for name in conflicts]
    extraction.duplicates = sum(clip.path in samples for clip in clips) - len(examples) - len(conflicts)
    if not examples:
        if not extraction.failed:
            raise NoInputError("no clips to work on")
        first = extraction.failed[0]
        raise NoInputError(
            f"none of the {len(clips)} clips can be used; "
            f"the first, {display_name(first.path)}: {first.error}"
        )
    return examples


# The sets with one row a clip; `augment` has several, of altered copies.
_SETS = ("mfcc", "whisper")
_SUFFIXES = (".csv", ".npz", ".parquet")


@dataclass(frozen=True)
class FeatureTable:
    """Features of distinct labelled clips, one row each.

    Attributes
    ----------
    feature_set : str
    X : np.ndarray [shape=(clips, dim), dtype=float32]
    y : np.ndarray [shape=(clips,), dtype=str]
        Labels.
    speakers : np.ndarray [shape=(clips,), dtype=str]
        Corpus and speaker, as `ravdess/03`: the groups of a cross-validation. Clips of unknown speakers are
        one group, the empty name, so that training and test never share one of them.
    paths, corpora : np.ndarray [shape=(clips,), dtype=str]
    extraction : Extraction
        What had to be computed; under `failed` the clips that could not be used.
    """

    feature_set: str
    X: NDArray[np.float32]
    y: NDArray[np.str_]
    speakers: NDArray[np.str_]
    paths: NDArray[np.str_]
    corpora: NDArray[np.str_]
    extraction: Extraction

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .csv, .npz or .parquet, whole or not at all, as docs/python.md describes them.

        Raises
        ------
        ConfigError
            As `check_table_path`.
        AccessError
            It cannot be written.
        """
        path = check_table_path(path)
        texts = {"path": self.paths, "label": self.y, "speaker": self.speakers, "corpus": self.corpora}
        names = [f"{self.feature_set}_{i}" for i in range(self.X.shape[1])]
        with atomic_path(path) as temp:
            if path.suffix == ".npz":
                np.savez(
                    temp, X=self.X, y=self.y, speakers=self.speakers, paths=self.paths, corpora=self.corpora
                )
            elif path.suffix == ".csv":
                with temp.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow([*texts, *names])
                    for *head, row in zip(*texts.values(), self.X, strict=True):
                        # Nine digits give back the same float32.
                        writer.writerow([*head, *(f"{value:.9g}" for value in row.tolist())])
            else:
                from pyarrow import parquet, table

                # Parquet is UTF-8: bytes of a name that are none become escapes.
                columns = {name: [*map(display_name, values.tolist())] for name, values in texts.items()}
                parquet.write_table(table(columns | dict(zip(names, self.X.T, strict=True))), temp)


def check_table_path(path: str | os.PathLike[str]) -> Path:
    """Refuse a name that does not end in .csv, .npz or .parquet, or needs a package that is missing."""
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"the file of features is {display_name(path)}, expected {' or '.join(_SUFFIXES)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                "the package pyarrow is not installed, which .parquet needs",
                "pip install pyarrow, or write .csv or .npz",
            ) from None
    return path


def load_features(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Collection,
    feature_set: str = "whisper",
    config: Config | None = None,
    on_progress: OnProgress | None = None,
) -> FeatureTable:
    """Load the features of all labelled clips of a corpus, computing what the store lacks.

    Parameters
    ----------
    data : path-like, sequence of path-like, or Collection
        Folders and manifests, as DATA of the commands.
    feature_set : {"whisper", "mfcc"}
    config : Config, optional
        Where the store is, how clips are found and read.
    on_progress : callable, optional
        Called with (clips done, clips).

    Raises
    ------
    NoInputError
        There is no clip that can be used.
    ConfigError
        No such feature set.
    StoreError, AccessError
        The store cannot be used.
    """
    if feature_set not in _SETS:
        raise ConfigError(f"the feature set is {feature_set!r}, expected {' or '.join(_SETS)}")
    config = config or Config()
    if not isinstance(data, Collection):
        folders = [data] if isinstance(data, str | os.PathLike) else data
        data = find_all([os.fspath(one) for one in folders], config)
    found = load(data.clips, config, feature_set, on_progress=on_progress)
    clips = [example.clip for example in found.examples]
    return FeatureTable(
        feature_set,
        X=found.x,
        y=np.array([clip.label for clip in clips]),
        speakers=np.array([clip.speaker_id or "" for clip in clips]),
        paths=np.array([clip.path for clip in clips]),
        corpora=found.corpora,
        extraction=found.extraction,
    )
