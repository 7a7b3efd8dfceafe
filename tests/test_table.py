"""Features for other tools: the arrays of load_features, and the files of FeatureTable.save."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechemo_cli.audio import reader
from speechemo_cli.config import Config
from speechemo_cli.errors import ConfigError, NoInputError
from speechemo_cli.features.dataset import FeatureTable, load_features
from speechemo_cli.features.workers import compute


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """The folder of a corpus, and a config whose store holds it."""
    config = Config(store=str(tmp_path_factory.mktemp("store")))
    load_features(corpus_folder, "mfcc", config)
    return corpus_folder, config


@pytest.fixture
def table(corpus: tuple[Path, Config]) -> FeatureTable:
    return load_features(corpus[0], "mfcc", corpus[1])


def test_load_features_gives_the_rows_of_the_clips(table: FeatureTable, corpus: tuple[Path, Config]) -> None:
    assert table.X.shape == (240, 40)
    assert table.extraction.cached == 240
    assert table.y.shape == table.speakers.shape == table.paths.shape == table.corpora.shape == (240,)
    at = table.paths.tolist().index(str(corpus[0] / "Actor_02" / "03-01-04-02-01-01-02.wav"))
    assert (table.y[at], table.speakers[at], table.corpora[at]) == ("sad", "ravdess/02", "ravdess")
    clip = reader.read(str(table.paths[at]), corpus[1].audio)
    np.testing.assert_array_equal(table.X[at], compute(clip, "mfcc", corpus[1])[0])


def test_load_features_fits_scikit_learn(table: FeatureTable) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    scores = cross_val_score(pipeline, table.X, table.y, groups=table.speakers, cv=GroupKFold(4))

    assert scores.mean() > 2 / 8  # twice as often right as by chance


def test_load_features_makes_unknown_speakers_one_group_and_names_failures(
    write_clip: Callable[..., Path], tmp_path: Path
) -> None:
    for i, label in enumerate(("happy", "sad")):
        write_clip(f"one/{label}/{i}.wav", f0=120 + 10 * i)
        write_clip(f"two/{label}/{i}.wav", f0=220 + 10 * i)
    (tmp_path / "one" / "sad" / "broken.wav").write_text("no audio")
    done: list[tuple[int, int]] = []

    found = load_features(["one", "two"], on_progress=lambda *step: done.append(step))

    assert found.X.shape == (4, 3072)
    assert found.feature_set == "whisper"
    assert found.speakers.tolist() == [""] * 4
    assert found.corpora.tolist() == ["one", "one", "two", "two"]
    assert [Path(failure.path).name for failure in found.extraction.failed] == ["broken.wav"]
    assert done[-1][0] == done[-1][1]


def test_load_features_refuses_other_sets_and_missing_folders() -> None:
    with pytest.raises(ConfigError, match=r"feature set is 'augment', expected mfcc or whisper"):
        load_features("data", "augment")
    with pytest.raises(NoInputError, match="nowhere does not exist"):
        load_features("nowhere", "mfcc")


def test_save_npz_holds_the_arrays_and_no_pickles(table: FeatureTable) -> None:
    table.save("features.npz")

    with np.load("features.npz", allow_pickle=False) as saved:
        assert set(saved) == {"X", "y", "speakers", "paths", "corpora"}
        for name in saved:
            np.testing.assert_array_equal(saved[name], getattr(table, name))


@pytest.mark.parametrize(("name", "read"), [("f.csv", pd.read_csv), ("f.parquet", pd.read_parquet)])
def test_save_gives_pandas_the_same_numbers(
    name: str, read: Callable[[str], Any], table: FeatureTable
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    table.save(name)

    frame = read(name)
    assert list(frame.columns[:5]) == ["path", "label", "speaker", "corpus", "mfcc_0"]
    np.testing.assert_array_equal(frame.iloc[:, 4:].to_numpy(np.float32), table.X)
    for column, values in (("path", table.paths), ("label", table.y), ("speaker", table.speakers)):
        assert frame[column].tolist() == values.tolist()


def test_save_refuses_other_names_and_says_what_parquet_needs(
    table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"features is f\.xlsx, expected \.csv or \.npz or \.parquet"):
        table.save("f.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"package pyarrow is not installed.*pip install pyarrow"):
        table.save("f.parquet")
    assert not Path("f.parquet").exists()
