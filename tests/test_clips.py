"""The audio files below a folder, and the names of corpora and speakers."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

import pytest
from conftest import touch

from speechemo_cli.corpus.clips import Clip, NotAudio, corpus_names, iter_audio_files, speaker_names
from speechemo_cli.errors import AccessError


def test_iter_audio_files_gives_visible_files_with_audio_suffixes_in_order(tmp_path: Path) -> None:
    audio = ["a.wav", "b.WAV", "c.Flac", "d.ogg", "e.opus", "f.mp3", "g.aiff", "h.aif"]
    audio += [os.fsdecode(b"not utf-8 \xe9 [1]\n.wav"), "x/10.wav", "x/2.wav", "x/y/1.wav", "z/1.wav"]
    others = ["i.txt", "j.wav.part", "k", "wav", "l.tar.gz", "x/Audio_Speech.ZIP"]
    touch(tmp_path, *reversed(audio), *others, "._a.wav", ".git/b.wav")
    passed_over = NotAudio()
    paths = iter_audio_files(str(tmp_path), passed_over)
    assert [os.path.relpath(path, tmp_path) for path in paths] == audio
    assert passed_over == NotAudio(len(others), archive=str(tmp_path / "l.tar.gz"))


def test_iter_audio_files_follows_links_and_ends_in_a_loop_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "store/x.wav", "data/angry/a.wav", "data/sad/b.wav")
    (tmp_path / "data" / "angry" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "calm").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "sad" / "linked.wav").symlink_to(tmp_path / "store" / "x.wav")
    (tmp_path / "data" / "sad" / "self").symlink_to(tmp_path / "data" / "sad")
    (tmp_path / "data" / "sad" / "self.wav").symlink_to("self.wav")  # it is refused when it is read
    paths = [os.path.relpath(path, tmp_path / "data") for path in iter_audio_files(str(tmp_path / "data"))]
    assert paths == ["angry/a.wav", "calm/x.wav", "sad/b.wav", "sad/linked.wav", "sad/self.wav"]


def test_iter_audio_files_lists_a_folder_when_its_turn_comes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "a/2.wav", "a/notes.txt", "b/3.wav")
    passed_over = NotAudio()
    paths = iter_audio_files(str(tmp_path), passed_over)

    assert [Path(next(paths)).name, Path(next(paths)).name] == ["1.wav", "2.wav"]
    assert passed_over.other == 0
    touch(tmp_path, "b/4.wav")
    assert [Path(path).name for path in paths] == ["3.wav", "4.wav"]
    assert passed_over.other == 1


def test_iter_audio_files_enters_folders_however_deep_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/" * 300 + "clip.wav")
    limit = sys.getrecursionlimit()

    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        passed_over = NotAudio()
        paths = list(iter_audio_files(str(tmp_path), passed_over))
    finally:
        sys.setrecursionlimit(limit)

    assert (len(paths), passed_over.unreadable) == (1, [])


def test_iter_audio_files_names_folders_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(".", "a/1.wav", "b/2.wav")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "a":  # noqa: PTH119 - it is a str here
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    passed_over = NotAudio()

    assert list(iter_audio_files(".", passed_over)) == ["./b/2.wav"]
    assert passed_over.unreadable == ["./a"]
    for name, why in (("a", "permission denied"), ("gone", "no such file")):
        with pytest.raises(AccessError, match=f"cannot read {name}: {why}"):
            list(iter_audio_files(name))


def test_corpus_names_are_those_of_folders_and_lists_and_never_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").mkdir()
    given = {
        "data/nemo": "nemo",
        "data/nemo/": "nemo-2",
        "../elsewhere/": "elsewhere",
        "lists/emodb.csv": "emodb",
        "data/aesdd/manifest.csv": "aesdd",
        "odd.csv": "odd.csv",
        ".": tmp_path.name,
        "/": "data",
    }
    assert corpus_names(list(given)) == list(given.values())
    assert corpus_names(["a/x", "b/x", "x-2", "c/x"]) == ["x", "x-2", "x-2-2", "x-3"]


def test_speaker_names_are_without_the_corpus_where_there_is_one_alone() -> None:
    assert Clip("a.wav", "sad", "03").speaker_id == "03"
    assert speaker_names(["ravdess/01", "ravdess/02"]) == {"ravdess/01": "01", "ravdess/02": "02"}
    assert speaker_names(["a/01", "b/01"]) == {"a/01": "a/01", "b/01": "b/01"}
    assert speaker_names(["a/b/c"]) == {"a/b/c": "b/c"}
    assert speaker_names([]) == {}
