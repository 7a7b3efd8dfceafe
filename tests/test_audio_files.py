"""The audio files below a folder."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

import pytest
from conftest import touch

from speechemo_cli.corpus.clips import NotAudio, iter_audio_files
from speechemo_cli.errors import AccessError


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "angry/a.wav", "angry/._a.wav", ".git/angry/b.wav", "angry/.cache/c.wav")
    passed_over = NotAudio()
    paths = list(iter_audio_files(str(tmp_path), passed_over))
    assert [os.path.relpath(path, tmp_path) for path in paths] == ["angry/a.wav"]
    assert passed_over.other == 0


def test_files_are_told_by_their_suffix_whatever_its_case(tmp_path: Path) -> None:
    audio = ["a.wav", "b.WAV", "c.Flac", "d.ogg", "e.opus", "f.mp3", "g.aiff", "h.aif"]
    touch(tmp_path, *audio, "i.txt", "j.wav.part", "k", "wav")
    passed_over = NotAudio()
    paths = list(iter_audio_files(str(tmp_path), passed_over))
    assert [Path(path).name for path in paths] == audio
    assert passed_over.other == 4


def test_walking_gives_the_same_order_however_the_files_were_made(tmp_path: Path) -> None:
    names = [f"{folder}/{name}.wav" for folder in ("b", "a", "c/x") for name in ("2", "10", "1")]
    touch(tmp_path / "one", *names)
    touch(tmp_path / "two", *reversed(names))
    one, two = (
        [os.path.relpath(path, tmp_path / root) for path in iter_audio_files(str(tmp_path / root))]
        for root in ("one", "two")
    )
    assert one == two
    assert sorted(one) == sorted(names)


def test_a_loop_of_links_ends_and_gives_each_clip_once(tmp_path: Path) -> None:
    touch(tmp_path, "angry/a.wav", "sad/b.wav")
    (tmp_path / "angry" / "up").symlink_to(tmp_path)
    (tmp_path / "sad" / "self").symlink_to(tmp_path / "sad")
    paths = list(iter_audio_files(str(tmp_path)))
    assert sorted(Path(path).name for path in paths) == ["a.wav", "b.wav"]


def test_a_folder_is_looked_into_when_its_turn_comes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "a/2.wav", "a/notes.txt", "b/3.wav")
    passed_over = NotAudio()
    paths = iter_audio_files(str(tmp_path), passed_over)

    assert [Path(next(paths)).name, Path(next(paths)).name] == ["1.wav", "2.wav"]
    assert passed_over.other == 0
    touch(tmp_path, "b/4.wav")
    assert [Path(path).name for path in paths] == ["3.wav", "4.wav"]
    assert passed_over.other == 1
    assert len(list(iter_audio_files(str(tmp_path)))) == 4


def test_folders_are_walked_however_deep_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/" * 300 + "clip.wav")
    limit = sys.getrecursionlimit()

    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        passed_over = NotAudio()
        paths = list(iter_audio_files(str(tmp_path), passed_over))
    finally:
        sys.setrecursionlimit(limit)

    assert (len(paths), passed_over.unreadable) == (1, [])


def test_a_name_that_is_no_utf8_comes_back_as_it_is_on_the_disk(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/angry/caf\xe9 [1]\n.wav"
    touch(tmp_path, "angry/a.wav")
    Path(os.fsdecode(name)).touch()
    paths = list(iter_audio_files(str(tmp_path)))
    assert name in [os.fsencode(path) for path in paths]


@pytest.mark.skipif(os.geteuid() == 0, reason="root enters every folder")
def test_a_folder_that_may_not_be_entered_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0)
    with pytest.raises(AccessError, match=r"cannot read .*shut: permission denied"):
        list(iter_audio_files(str(tmp_path / "shut")))
    (tmp_path / "shut").chmod(0o700)


def test_walking_what_is_not_there_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no such file"):
        list(iter_audio_files(str(tmp_path / "gone")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_said(tmp_path: Path) -> None:
    (tmp_path / "shut" / "in").mkdir(parents=True)
    (tmp_path / "shut" / "in").chmod(0)
    try:
        passed_over = NotAudio()
        assert list(iter_audio_files(str(tmp_path), passed_over)) == []
        assert passed_over.unreadable == [str(tmp_path / "shut" / "in")]
    finally:
        (tmp_path / "shut" / "in").chmod(0o755)


def test_a_folder_that_goes_while_it_is_looked_at_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "clip.wav").touch()
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "a":  # noqa: PTH119 - it is a str here
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    passed_over = NotAudio()

    assert list(iter_audio_files(str(tmp_path), passed_over)) == [str(tmp_path / "b" / "clip.wav")]
    assert passed_over.unreadable == [str(tmp_path / "a")]


def test_iter_audio_files_names_the_first_archive_it_passes_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b/Audio_Speech.ZIP", "c.tar.gz", "d.wav")
    passed_over = NotAudio()
    assert len(list(iter_audio_files(str(tmp_path), passed_over))) == 1
    assert (passed_over.other, passed_over.archive) == (3, str(tmp_path / "c.tar.gz"))
