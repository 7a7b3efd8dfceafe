"""Labelled clips to arrays: rows, targets and labels that belong together."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from speechemo_cli.audio import reader
from speechemo_cli.config import AugmentConfig, Config
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example
from speechemo_cli.errors import DataError, NoInputError, StoreError
from speechemo_cli.features.dataset import clip_weights, load, near_copies
from speechemo_cli.features.workers import compute
from speechemo_cli.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable

    WriteClip = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(store=str(tmp_path / "features"), jobs=1)


def make_clips(write_clip: WriteClip, labels: list[str]) -> list[Clip]:
    return [
        Clip(str(write_clip(f"{i}.wav", seconds=0.3, f0=100 + 10 * i)), label)
        for i, label in enumerate(labels)
    ]


def flip_a_value(path: Path) -> None:
    """Damage that shows only when the values are read, not when the shard is listed."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.start_dir - 1] ^= 0x40
    path.write_bytes(content)


def test_rows_and_targets_are_those_of_the_clips(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry", "sad", "neutral"])
    dataset = load(clips, config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips
    assert [dataset.labels[target] for target in dataset.targets] == ["sad", "angry", "sad", "neutral"]
    assert dataset.x.shape == (4, 40)
    assert dataset.x.dtype == np.float32
    assert dataset.targets.dtype == np.int64
    for row, clip in zip(dataset.x, clips, strict=True):
        np.testing.assert_array_equal(row, compute(reader.read(clip.path, config.audio), "mfcc", config)[0])


def test_rows_follow_the_clips_and_not_the_order_of_the_store(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry", "happy"])
    load(clips[2:], config, "mfcc")  # so that two shards hold them
    forwards = load(clips, config, "mfcc")
    backwards = load(clips[::-1], config, "mfcc")
    np.testing.assert_array_equal(forwards.x, backwards.x[::-1])
    np.testing.assert_array_equal(forwards.targets, backwards.targets[::-1])
    assert forwards.labels == backwards.labels


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (["sad", "angry", "neutral"], ("neutral", "sad", "angry")),
        (["surprised", "calm"], ("calm", "surprised")),
        (["zeal", "boredom", "disgust", "happy"], ("happy", "disgust", "boredom", "zeal")),
    ],
)
def test_labels_stand_in_the_one_order_whatever_the_order_of_clips(
    write_clip: WriteClip, config: Config, given: list[str], order: tuple[str, ...]
) -> None:
    assert load(make_clips(write_clip, given), config, "mfcc").labels == order


def test_a_given_list_of_labels_is_what_targets_count_in(write_clip: WriteClip, config: Config) -> None:
    labels = ("angry", "happy", "sad")
    dataset = load(make_clips(write_clip, ["sad", "angry"]), config, "mfcc", labels=labels)
    assert dataset.labels == labels
    assert dataset.targets.tolist() == [2, 0]


def test_copies_with_one_label_are_one_example(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    clips.append(Clip(shutil.copy(clips[0].path, "copy.wav"), "sad"))
    dataset = load(clips, config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips[:2]
    assert len(dataset.x) == len(dataset.targets) == 2
    assert dataset.extraction.duplicates == 1
    assert dataset.extraction.failed == []


def test_a_copy_in_another_format_is_the_same_recording(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    y, sr = soundfile.read(clips[0].path, dtype="int16")
    soundfile.write("copy.flac", y, sr)
    dataset = load([*clips, Clip("copy.flac", "sad")], config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips
    assert [example.sha256 for example in dataset.examples] == [sha256_file(clip.path) for clip in clips]
    assert dataset.extraction.duplicates == 1


def test_a_copy_in_another_format_with_another_label_is_left_out(
    write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    y, sr = soundfile.read(clips[0].path, dtype="int16")
    soundfile.write("copy.flac", y, sr)
    dataset = load([*clips, Clip("copy.flac", "happy")], config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips[1:]
    assert "sad" in dataset.extraction.failed[0].path


def test_a_recording_under_two_labels_is_left_out_and_named(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry", "happy"])
    clips.append(Clip(shutil.copy(clips[0].path, "copy.wav"), "angry"))
    dataset = load(clips, config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips[1:3]
    assert dataset.labels == ("happy", "angry")
    (failure,) = dataset.extraction.failed
    assert clips[0].path in failure.path
    assert "sad and angry" in failure.path
    assert failure.error == "the same recording stands under two labels"


def test_a_file_listed_under_two_labels_is_left_out_too(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    dataset = load([*clips, Clip(clips[0].path, "happy")], config, "mfcc")
    assert [example.clip for example in dataset.examples] == clips[1:]
    assert len(dataset.extraction.failed) == 1


def test_a_refused_clip_is_named_and_the_others_are_loaded(
    write_clip: WriteClip, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    clips = [Clip(str(tmp_path / "bad.wav"), "calm"), *make_clips(write_clip, ["sad", "angry"])]
    dataset = load(clips, config, "mfcc")
    assert len(dataset.x) == 2
    assert dataset.labels == ("sad", "angry")
    assert [failure.path for failure in dataset.extraction.failed] == [str(tmp_path / "bad.wav")]


def test_not_one_usable_clip_is_no_input(config: Config, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.wav").write_text(f"no sound {i}")
    clips = [Clip(str(tmp_path / f"{i}.wav"), "sad") for i in range(3)]
    with pytest.raises(
        NoInputError, match=r"none of the 3 clips can be used; the first, .*0\.wav: not audio"
    ):
        load(clips, config, "mfcc")


def test_only_recordings_with_two_labels_are_no_input(write_clip: WriteClip, config: Config) -> None:
    (clip,) = make_clips(write_clip, ["sad"])
    with pytest.raises(NoInputError, match="the same recording stands under two labels"):
        load([clip, Clip(clip.path, "angry")], config, "mfcc")


def test_loading_extracts_only_what_the_store_lacks(write_clip: WriteClip, config: Config) -> None:
    clips = make_clips(write_clip, ["sad", "angry", "happy"])
    assert load(clips[:2], config, "mfcc").extraction.extracted == 2
    second = load(clips, config, "mfcc").extraction
    assert (second.extracted, second.cached) == (1, 2)


def test_progress_reaches_the_total(write_clip: WriteClip, config: Config) -> None:
    steps: list[tuple[int, int]] = []
    clips = make_clips(write_clip, ["sad", "angry"])
    load(clips, config, "mfcc", on_progress=lambda *step: steps.append(step))
    assert steps[-1] == (2, 2)


def test_damage_found_on_reading_is_set_aside_and_named_and_its_clips_are_computed_anew(
    write_clip: WriteClip, config: Config
) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    whole = load(clips, config, "mfcc").x
    (shard,) = Path(config.store).glob("*/*.npz")
    flip_a_value(shard)
    again = load(clips, config, "mfcc")
    np.testing.assert_array_equal(again.x, whole)
    assert again.extraction.damaged == [f"{shard}.damaged"]
    assert again.extraction.extracted == 2
    assert load(clips, config, "mfcc").extraction.damaged == []


def test_damage_that_cannot_be_set_aside_is_an_error_that_names_it(
    write_clip: WriteClip, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(write_clip, ["sad", "angry"])
    load(clips, config, "mfcc")
    (shard,) = Path(config.store).glob("*/*.npz")
    flip_a_value(shard)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match=f"2 clips could not be read back.*{shard.name}.*--store"):
        load(clips, config, "mfcc")


def test_no_clips_are_no_input(config: Config) -> None:
    with pytest.raises(NoInputError, match="no clips to work on"):
        load([], config, "mfcc")


def test_a_label_outside_the_list_is_named(write_clip: WriteClip, config: Config) -> None:
    with pytest.raises(DataError, match="clips are labelled bored, expected happy, sad"):
        load([Clip(str(write_clip()), "bored")], config, "mfcc", labels=("happy", "sad"))


def test_a_subset_keeps_rows_targets_and_clips_together_and_every_label(
    write_clip: WriteClip, config: Config
) -> None:
    dataset = load(make_clips(write_clip, ["sad", "angry", "happy", "sad"]), config, "mfcc")

    part = dataset.subset(np.array([3, 1]))

    assert part.examples == (dataset.examples[3], dataset.examples[1])
    np.testing.assert_array_equal(part.x, dataset.x[[3, 1]])
    assert part.targets.tolist() == [dataset.targets[3], dataset.targets[1]]
    assert part.labels == dataset.labels == ("happy", "sad", "angry")


@pytest.fixture
def voices(corpus_folder: Path) -> list[Path]:
    """The clips of one synthetic voice."""
    return sorted((corpus_folder / "Actor_01").glob("*.wav"))


def test_load_tells_a_lossy_copy_and_a_trimmed_one_but_no_repetition(
    voices: list[Path], config: Config, rng: np.random.Generator
) -> None:
    y, sr = soundfile.read(voices[5], dtype="float32")
    # Synthetic voices are too clean: an encoder leaves out what lies below the noise of a real room.
    y += 0.003 * rng.standard_normal(len(y)).astype(np.float32)
    soundfile.write("room.wav", y, sr)
    soundfile.write("copy.ogg", y, sr, compression_level=0.0)
    soundfile.write("trimmed.wav", y[3:-3], sr)
    clips = [Clip(str(path), "sad") for path in (*voices, "room.wav", "copy.ogg", "trimmed.wav")]

    found = load(clips, config, "mfcc").near_copies

    names = {frozenset(Path(example.clip.path).name for example in pair) for pair in found}
    assert names == set(map(frozenset, combinations(("room.wav", "copy.ogg", "trimmed.wav"), 2)))


def test_load_looks_for_near_copies_beside_the_clips_too(voices: list[Path], config: Config) -> None:
    train = load([Clip(str(path), "sad") for path in voices[:20]], config, "mfcc")
    y, sr = soundfile.read(voices[5], dtype="float32")
    soundfile.write("trimmed.wav", y[3:-3], sr)

    test = load([Clip("trimmed.wav", "sad")], config, "mfcc", beside=train)

    ((one, other),) = test.near_copies
    assert (one.clip.path, other.clip.path) == ("trimmed.wav", str(voices[5]))


def test_near_copies_are_found_across_blocks(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2500, 40)).astype(np.float32)
    x[2400] = x[3] + 0.001
    x[1500] = x[1499] * 1.0001

    assert near_copies(x, "mfcc") == [(3, 2400), (1499, 1500)]


def test_load_gives_further_sets_of_the_same_clips(write_clip: WriteClip, config: Config) -> None:
    config = dataclasses.replace(config, augment=AugmentConfig(copies=2))
    clips = make_clips(write_clip, ["sad", "angry", "happy"])
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


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({("own", False): 4}, [1.0]),
        # Songs beside spoken clips count half; songs alone are all there is.
        ({("own", False): 4, ("own", True): 2}, [1.0, 0.5]),
        ({("own", True): 4}, [1.0]),
        # Another corpus counts a quarter of RAVDESS in all, however large it is, but no clip more than one.
        ({("ravdess", False): 40, ("big", False): 100, ("small", False): 5}, [1.0, 0.1, 1.0]),
        # RAVDESS counts 40 + 0.5 * 20.
        ({("ravdess", False): 40, ("ravdess", True): 20, ("big", False): 50}, [1.0, 0.5, 0.25]),
        # Without it, the largest is what the others are measured by.
        ({("one", False): 100, ("two", False): 50}, [1.0, 0.5]),
    ],
    ids=["one corpus", "songs", "songs alone", "three corpora", "songs and corpora", "no RAVDESS"],
)
def test_clip_weights_let_no_corpus_drown_the_others(
    counts: dict[tuple[str, bool], int], expected: list[float]
) -> None:
    examples = [
        Example(Clip(f"{corpus}/{song}/{i}.wav", "sad", corpus=corpus, song=song), str(i))
        for (corpus, song), n in counts.items()
        for i in range(n)
    ]

    weights = clip_weights(examples)

    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, np.repeat(expected, list(counts.values())), rtol=1e-6)
