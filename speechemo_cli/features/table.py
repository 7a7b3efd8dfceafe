"""A feature set as a table for other tools: scikit-learn, pandas, spreadsheets."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.config import Config
from speechemo_cli.corpus.clips import Collection
from speechemo_cli.corpus.layouts import find_all
from speechemo_cli.errors import ConfigError
from speechemo_cli.features import dataset
from speechemo_cli.files import atomic_path, display_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.features.extraction import Extraction, OnProgress

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
            As `check_path`.
        AccessError
            It cannot be written.
        """
        path = check_path(path)
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


def check_path(path: str | os.PathLike[str]) -> Path:
    """Refuse a name that does not end in .csv, .npz or .parquet, or needs a package that is missing.

    Raises
    ------
    ConfigError
    """
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
        data = find_all(
            [os.fspath(one) for one in folders],
            song=config.song,
            label_from=config.label_from,
            speaker_from=config.speaker_from,
        )
    found = dataset.load(data.clips, config, feature_set, on_progress=on_progress)
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
