"""What the folders of people's own recordings mean."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from conftest import touch

from speechemo_cli.corpus.clips import NO_LABEL
from speechemo_cli.corpus.layouts import find_clips
from speechemo_cli.errors import NoInputError

if TYPE_CHECKING:
    from pathlib import Path

Told = dict[str, tuple[str, str | None]]


def read(root: Path, *names: str) -> Told:
    """Label and speaker by name, of those that have a label."""
    touch(root, *(f"{name}.wav" for name in names))
    clips = find_clips(str(root))
    return {os.path.relpath(clip.path, root)[:-4]: (clip.label, clip.speaker) for clip in clips}


@pytest.mark.parametrize(
    "told",
    [
        {"angry/a": ("angry", None), "Fear/b": ("fearful", None)},
        {"fear/anna/a": ("fearful", "anna"), "sad/bob/b": ("sad", "bob")},
        {"anna/fear/a": ("fearful", "anna"), "bob/sad/b": ("sad", "bob")},
        # levels that say how recordings are kept
        {"train/s1/angry/a": ("angry", "s1"), "test/s2/sad/b": ("sad", "s2"), "val/s1/sad/c": ("sad", "s1")},
        {"angry/male/m1/a": ("angry", "m1"), "sad/female/f2/b": ("sad", "f2")},
        {"female/angry/a": ("angry", None), "male/sad/b": ("sad", None)},
        {"session1/angry/a": ("angry", None), "session2/sad/b": ("sad", None)},
        {"phone/angry/a": ("angry", None), "studio/sad/b": ("sad", None)},
        {"angry/level_1/a": ("angry", None), "sad/level_2/b": ("sad", None)},
        {"2019-05-06/angry/a": ("angry", None), "2020-01-02/sad/b": ("sad", None)},
        {"wav_16k/angry/a": ("angry", None), "wav_16k/sad/b": ("sad", None)},
        # levels with one folder alone
        {"study/ann/angry/a": ("angry", "ann"), "study/bob/sad/b": ("sad", "bob")},
        {"anger_study/ann/sad/a": ("sad", "ann"), "anger_study/bob/happy/b": ("happy", "bob")},
        {"speaker07/angry/a": ("angry", "speaker07"), "speaker07/sad/b": ("sad", "speaker07")},
        {"angry/a": ("angry", None), "angry/b": ("angry", None)},
        # of several other levels the one that looks like speakers, else none
        {"lab1/Actor_01/angry/a": ("angry", "Actor_01"), "lab2/Actor_02/sad/b": ("sad", "Actor_02")},
        {"red/ann/angry/a": ("angry", None), "blue/bob/sad/b": ("sad", None)},
        # words for emotions elsewhere than in labels
        {"Joy/angry/a": ("angry", "Joy"), "Ann/sad/b": ("sad", "Ann"), "Bob/sad/c": ("sad", "Bob")},
        {"01_angry/a": ("angry", None), "02_Pleasant_surprise/b": ("surprised", None)},
        {"angry/a": ("angry", None), "not_angry/b": ("not_angry", None)},
        # words in the names of files
        {"20190610_angry": ("angry", None), "20190611_sad": ("sad", None)},
        {"speaker1/angry_01": ("angry", "speaker1"), "speaker2/sad_03": ("sad", "speaker2")},
        {"happy_project/ann/x_sad": ("sad", "ann"), "happy_project/bob/x_angry": ("angry", "bob")},
        {"angry/so_sad": ("angry", None), "sad/so_happy": ("sad", None)},
        # depths that differ
        {"angry/a": ("angry", None), "sad/ann/b": ("sad", "ann"), "happy/bob/c": ("happy", "bob")},
        # other languages, composed and decomposed
        {"Wut/a": ("angry", None), "Colère/b": ("angry", None), "Cole\u0300re/c": ("angry", None)},
        {"愤怒/张/a": ("angry", "张"), "高兴/李/b": ("happy", "李")},
        {"Angray/a": ("angry", None), "Superise/b": ("surprised", None), "ang/c": ("angry", None)},
    ],
)
def test_read_folders_finds_labels_and_speakers(told: Told, tmp_path: Path) -> None:
    assert read(tmp_path / "data", *told) == told


def test_read_folders_takes_the_siblings_of_a_label_for_labels(tmp_path: Path) -> None:
    names = ["angry/a", "sad/b", "Boredom/c", "Contempt/d", "Grumpy/e", "unsorted/f", "loose"]
    assert read(tmp_path, *names) == {
        "angry/a": ("angry", None),
        "sad/b": ("sad", None),
        "Boredom/c": ("boredom", None),
        "Contempt/d": ("contempt", None),
        "Grumpy/e": ("grumpy", None),
    }
    assert find_clips(str(tmp_path)).skipped == {NO_LABEL: 2}


def test_read_folders_takes_no_folder_for_each_clip_for_a_speaker(tmp_path: Path) -> None:
    names = [f"{label}/rec{label}{i}/audio" for label in ("angry", "sad") for i in range(10)]
    assert {speaker for _, speaker in read(tmp_path, *names).values()} == {None}


@pytest.mark.parametrize(
    "names",
    [
        ["yes/a", "no/b"],
        ["DC/a", "JE/b", "JK/c", "KL/d"],
        ["train/a", "test/b"],
        ["1/a", "2/b"],
        ["a", "b"],
        [f"{name}/a" for name in ("Joy", "Ann", "Bob", "Cy", "Dee")],
    ],
)
def test_read_folders_guesses_no_label(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no label is known"):
        read(tmp_path, *names)


def test_read_folders_reads_the_path_below_the_data_alone(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no label is known"):
        read(tmp_path / "angry", "yes/a", "no/b")
