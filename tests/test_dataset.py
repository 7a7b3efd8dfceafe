"""Labelled clips to arrays: rows, targets and labels that belong together; and tables for other tools."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from entries import flip_a_value, shards

from speechemo_cli.audio import reader
from speechemo_cli.config import AugmentConfig, Config
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import ConfigError, DataError, NoInputError, StoreError
from speechemo_cli.features.dataset import FeatureTable, load, load_features, near_copies
from speechemo_cli.features.extraction import compute
from speechemo_cli.files import sha256_file

WriteClip = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=str(tmp_path / "features"), jobs=1)


def make_clips(write_clip: WriteClip, *labels: str) -> list[Clip]:
    return [
        Clip(str(write_clip(f"{i}.wav", seconds=0.3, f0=100 + 10 * i)), label)
        for i, label in enumerate(labels)
    ]


def test_load_gives_the_rows_and_targets_of_the_clips_in_their_order(
    write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, "sad", "angry", "sad", "neutral")
    assert load(clips[2:], config, "mfcc").extraction.extracted == 2  # so that two shards hold them
    dataset = load(clips, config, "mfcc")
    assert (dataset.extraction.extracted, dataset.extraction.cached) == (2, 2)
    assert [example.clip for example in dataset.examples] == clips
    assert [dataset.labels[target] for target in dataset.targets] == ["sad", "angry", "sad", "neutral"]
    assert (dataset.x.shape, dataset.x.dtype, dataset.targets.dtype) == ((4, 40), np.float32, np.int64)
    for row, clip in zip(dataset.x, clips, strict=True):
        np.testing.assert_array_equal(row, compute(reader.read(clip.path, config.audio), "mfcc", config)[0])
    backwards = load(clips[::-1], config, "mfcc")
    np.testing.assert_array_equal(dataset.x, backwards.x[::-1])
    np.testing.assert_array_equal(dataset.targets, backwards.targets[::-1])

    part = dataset.subset(np.array([3, 1]))
    assert part.examples == (dataset.examples[3], dataset.examples[1])
    np.testing.assert_array_equal(part.x, dataset.x[[3, 1]])
    assert part.targets.tolist() == [dataset.targets[3], dataset.targets[1]]
    assert part.labels == dataset.labels == ("neutral", "sad", "angry")


def test_load_orders_labels_whatever_the_order_of_clips_unless_a_list_is_given(
    write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, "zeal", "boredom", "disgust", "happy")
    assert load(clips, config, "mfcc").labels == ("happy", "disgust", "boredom", "zeal")
    given = ("zeal", "sad", "boredom")
    dataset = load(clips[:2], config, "mfcc", labels=given)
    assert (dataset.labels, dataset.targets.tolist()) == (given, [0, 2])
    with pytest.raises(DataError, match="clips are labelled happy, disgust, expected zeal, sad, boredom"):
        load(clips, config, "mfcc", labels=given)


@pytest.mark.parametrize("name", ["copy.wav", "copy.flac", "0.wav"])
@pytest.mark.parametrize("label", ["sad", "happy"])
def test_load_keeps_one_of_the_clips_of_a_recording_and_none_that_has_two_labels(
    name: str, label: str, write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, "sad", "angry")
    if name == "copy.flac":
        y, sr = soundfile.read(clips[0].path, dtype="int16")
        soundfile.write(name, y, sr)
    elif name == "copy.wav":
        shutil.copy(clips[0].path, name)
    else:
        name = clips[0].path  # the same file once more
    dataset = load([*clips, Clip(name, label)], config, "mfcc")
    if label == "sad":
        assert [example.clip for example in dataset.examples] == clips
        assert [example.sha256 for example in dataset.examples] == [sha256_file(clip.path) for clip in clips]
        assert dataset.labels == ("sad", "angry")
        assert (dataset.extraction.duplicates, dataset.extraction.failed) == (1, [])
    else:
        assert [example.clip for example in dataset.examples] == clips[1:]
        assert dataset.labels == ("angry",)
        (failure,) = dataset.extraction.failed
        assert clips[0].path in failure.path
        assert "happy and sad" in failure.path
        assert failure.error == "the same recording stands under two labels"


def test_load_without_a_usable_clip_is_no_input(write_clip: WriteClip, config: Config) -> None:
    for i in range(3):
        Path(f"{i}.wav").write_text(f"no sound {i}")
    clips = [Clip(f"{i}.wav", "sad") for i in range(3)]
    with pytest.raises(
        NoInputError, match=r"none of the 3 clips can be used; the first, .*0\.wav: not audio"
    ):
        load(clips, config, "mfcc")
    with pytest.raises(NoInputError, match="no clips to work on"):
        load([], config, "mfcc")
    (clip,) = make_clips(write_clip, "sad")
    with pytest.raises(NoInputError, match="the same recording stands under two labels"):
        load([clip, Clip(clip.path, "angry")], config, "mfcc")


def test_load_computes_clips_anew_when_their_damage_shows_on_reading(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(write_clip, "sad", "angry")
    whole = load(clips, config, "mfcc").x
    (shard,) = shards(Path(config.store))
    flip_a_value(shard)
    again = load(clips, config, "mfcc")
    np.testing.assert_array_equal(again.x, whole)
    assert again.extraction.damaged == [f"{shard}.damaged"]
    assert again.extraction.extracted == 2
    assert load(clips, config, "mfcc").extraction.damaged == []

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    (shard,) = shards(Path(config.store))
    flip_a_value(shard)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match=f"2 clips could not be read back.*{shard.name}.*--store"):
        load(clips, config, "mfcc")


def test_load_gives_further_sets_of_the_same_clips(write_clip: WriteClip, config: Config) -> None:
    config = dataclasses.replace(config, augment=AugmentConfig(copies=2))
    clips = make_clips(write_clip, "sad", "angry", "happy")
    clips.append(Clip(shutil.copy(clips[0].path, "copy.wav"), "sad"))

    dataset = load(clips, config, "mfcc", others=("mfcc@louder", "augment"))

    assert {name: rows.shape for name, rows in dataset.others.items()} == {
        "mfcc@louder": (3, 1, 40),
        "augment": (3, 2, 3072),
    }
    for i, clip in enumerate(clips[:3]):
        recording = reader.read(clip.path, config.audio)
        for name, rows in dataset.others.items():
            np.testing.assert_allclose(rows[i], compute(recording, name, config), atol=1e-5)
    part = dataset.subset(np.array([2, 0]))
    np.testing.assert_array_equal(part.others["augment"], dataset.others["augment"][[2, 0]])


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """The folder of two synthetic speakers, 16 clips each, and a config whose store holds them."""
    folder = tmp_path_factory.mktemp("corpus")
    for path in corpus_folder.glob("*/03-01-0[1345]-01-*-0[12].wav"):
        shutil.copy(path, folder)
    config = Config(store=str(tmp_path_factory.mktemp("store")), jobs=1)
    load_features(folder, "mfcc", config)
    return folder, config


@pytest.fixture
def speaker_clips(corpus: tuple[Path, Config]) -> list[Clip]:
    """The clips of one speaker."""
    return [Clip(str(path), "sad") for path in sorted(corpus[0].glob("*-01.wav"))]


def test_load_finds_lossy_and_trimmed_copies_but_no_repetitions(
    speaker_clips: list[Clip], corpus: tuple[Path, Config], rng: np.random.Generator
) -> None:
    y, sr = soundfile.read(speaker_clips[5].path, dtype="float32")
    # Synthetic voices are too clean: an encoder leaves out what lies below the noise of a real room.
    y += 0.003 * rng.standard_normal(len(y)).astype(np.float32)
    soundfile.write("room.wav", y, sr)
    soundfile.write("copy.ogg", y, sr, compression_level=0.0)
    soundfile.write("trimmed.wav", y[3:-3], sr)
    names = ("room.wav", "copy.ogg", "trimmed.wav")

    train = load([*speaker_clips, *(Clip(name, "sad") for name in names[:2])], corpus[1], "mfcc")
    test = load([Clip(names[2], "sad")], corpus[1], "mfcc", beside=train)

    pairs = {frozenset(example.clip.path for example in pair) for pair in test.near_copies}
    assert pairs == set(map(frozenset, combinations(names, 2)))
    assert [[example.clip.path for example in pair] for pair in train.near_copies] == [list(names[:2])]


def test_near_copies_are_found_across_blocks(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2500, 40)).astype(np.float32)
    x[2400] = x[3] + 0.001
    x[1500] = x[1499] * 1.0001

    assert near_copies(x, "mfcc") == [(3, 2400), (1499, 1500)]


@pytest.fixture
def table(corpus: tuple[Path, Config]) -> FeatureTable:
    return load_features(corpus[0], "mfcc", corpus[1])


def test_load_features_gives_the_rows_of_the_clips(table: FeatureTable, corpus: tuple[Path, Config]) -> None:
    assert table.X.shape == (32, 40)
    assert table.extraction.cached == 32
    assert table.y.shape == table.speakers.shape == table.paths.shape == table.corpora.shape == (32,)
    at = table.paths.tolist().index(str(corpus[0] / "03-01-04-01-02-01-02.wav"))
    assert (table.y[at], table.speakers[at], table.corpora[at]) == ("sad", "ravdess/02", "ravdess")
    clip = reader.read(str(table.paths[at]), corpus[1].audio)
    np.testing.assert_array_equal(table.X[at], compute(clip, "mfcc", corpus[1])[0])


def test_load_features_fits_scikit_learn(table: FeatureTable) -> None:
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    for _, test in GroupKFold(2).split(table.X, table.y, table.speakers):
        assert len(set(table.speakers[test])) == 1
    scores = cross_val_score(KNeighborsClassifier(1), table.X, table.y, cv=4)
    assert scores.mean() > 2 / 4  # twice as often right as by chance


def test_load_features_makes_unknown_speakers_one_group_and_names_failures(write_clip: WriteClip) -> None:
    for i, label in enumerate(("happy", "sad")):
        write_clip(f"one/{label}/{i}.wav", f0=120 + 10 * i)
        write_clip(f"two/{label}/{i}.wav", f0=220 + 10 * i)
    Path("one/sad/broken.wav").write_text("no audio")
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
