"""From a folder or a manifest to labelled clips."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.layouts import Clip, Walk, find_clips, parse_ravdess
from speechemo_cli.errors import AccessError, DataError, ExitCode, NoInputError


def touch(root: Path, *names: str) -> None:
    """Make empty files: finding clips never opens them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root: Path, clips: tuple[Clip, ...]) -> dict[str, tuple[str, str | None]]:
    return {os.path.relpath(clip.path, root): (clip.label, clip.speaker) for clip in clips}


# --- RAVDESS names


@pytest.mark.parametrize(("code", "emotion"), list(enumerate(EMOTIONS, start=1)))
def test_a_ravdess_name_gives_its_seven_fields(code: int, emotion: str) -> None:
    path = f"any/where/03-01-{code:02d}-02-01-02-12.wav"
    assert parse_ravdess(path) == Clip(path, emotion, "12", "f", 2, 1, 2, song=False, corpus="ravdess")


@pytest.mark.parametrize("actor", range(1, 25))
def test_actors_with_odd_numbers_are_men(actor: int) -> None:
    clip = parse_ravdess(f"03-02-04-01-02-01-{actor:02d}.wav")
    assert clip is not None
    assert clip.song
    assert clip.speaker == f"{actor:02d}"
    assert clip.gender == ("m" if actor in (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23) else "f")


@pytest.mark.parametrize("suffix", ["", ".wav", ".WAV", ".flac", ".ogg", ".mp3", ".xyz"])
def test_the_suffix_of_a_ravdess_name_does_not_matter(suffix: str) -> None:
    clip = parse_ravdess(Path("a") / f"03-01-05-02-01-01-12{suffix}")
    assert clip is not None
    assert (clip.label, clip.speaker) == ("angry", "12")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "clip.wav",
        "03-01-05-02-01-01.wav",
        "03-01-05-02-01-01-12-01.wav",
        "02-01-05-02-01-01-12.wav",  # video
        "01-01-05-02-01-01-12.wav",  # both
        "03-03-05-02-01-01-12.wav",
        "03-01-00-02-01-01-12.wav",
        "03-01-09-02-01-01-12.wav",
        "03-01-05-03-01-01-12.wav",
        "03-01-05-02-03-01-12.wav",
        "03-01-05-02-01-03-12.wav",
        "03-01-05-02-01-01-00.wav",
        "03-01-05-02-01-01-25.wav",
        "3-1-5-2-1-1-12.wav",
        "x03-01-05-02-01-01-12.wav",
        "03-01-05-02-01-01-12 (1).wav",
        "03-01-05-02-01-01-12/clip.wav",
    ],
)
def test_other_names_are_no_ravdess_names(name: str) -> None:
    assert parse_ravdess(name) is None


def test_ravdess_clips_are_found_at_any_depth_with_any_suffix(tmp_path: Path) -> None:
    names = [
        "03-01-01-01-01-01-01.wav",
        "Actor_02/03-01-03-01-01-01-02.flac",
        "a/b/c/d/03-01-05-01-01-01-03.WAV",
        "a/happy/03-01-06-01-01-01-04.mp3",  # the name counts, not the folder
    ]
    touch(tmp_path, *names)
    corpus = find_clips(str(tmp_path))
    assert corpus.layout == "ravdess"
    assert found(tmp_path, corpus.clips) == {
        names[0]: ("neutral", "01"),
        names[1]: ("happy", "02"),
        names[2]: ("angry", "03"),
        names[3]: ("fearful", "04"),
    }
    assert corpus.labels == ("neutral", "happy", "angry", "fearful")
    assert corpus.speakers == ("01", "02", "03", "04")
    assert corpus.skipped == {}


def test_the_demo_corpus_is_found_whole(corpus_folder: Path) -> None:
    corpus = find_clips(str(corpus_folder))
    assert corpus.labels == EMOTIONS
    assert Counter(clip.speaker for clip in corpus.clips) == {f"{actor:02d}": 60 for actor in range(1, 5)}
    assert len({clip.path for clip in corpus.clips}) == 240


def test_sung_clips_are_left_out_and_counted_unless_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "03-01-04-01-01-01-01.wav", "03-02-04-01-01-01-01.wav", "03-02-03-01-01-01-01.wav")
    corpus = find_clips(str(tmp_path))
    assert [clip.song for clip in corpus.clips] == [False]
    assert [count for reason, count in corpus.skipped.items() if "sung" in reason] == [2]
    with_song = find_clips(str(tmp_path), song=True)
    assert sorted(clip.song for clip in with_song.clips) == [False, True, True]
    assert with_song.skipped == {}


@pytest.mark.parametrize(
    "names",
    [
        ["03-01-04-01-01-01-01.wav", "a/03-01-05-01-01-01-02.wav", "03-02-04-01-01-01-01.wav", "other.wav"],
        ["angry/a.wav", "sad/anna/b.wav", "c.wav"],
        ["awe/a.wav", "boredom/anna/b.wav", "c.wav"],
    ],
)
def test_a_corpus_can_be_gone_through_again_and_again(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    corpus = find_clips(str(tmp_path))
    assert tuple(corpus) == tuple(corpus) == corpus.clips
    assert len(corpus) == len(corpus.clips) == 2


def test_a_corpus_of_nothing_but_song_says_why_it_is_empty(tmp_path: Path) -> None:
    touch(tmp_path, "03-02-04-01-01-01-01.wav")
    with pytest.raises(NoInputError, match="1 sung"):
        find_clips(str(tmp_path))
    assert len(find_clips(str(tmp_path), song=True).clips) == 1


def test_what_is_left_out_of_a_ravdess_folder_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "03-01-04-01-01-01-01.wav", "take2.wav", "sub/other.mp3", "notes.txt", "LICENSE")
    corpus = find_clips(str(tmp_path))
    assert len(corpus.clips) == 1
    assert sum(corpus.skipped.values()) == 4
    assert corpus.skipped["no RAVDESS name"] == 2


# --- walking


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "angry/a.wav", "angry/._a.wav", ".git/angry/b.wav", "angry/.cache/c.wav")
    walk = Walk(str(tmp_path))
    paths, skipped = list(walk), walk.other
    assert [os.path.relpath(path, tmp_path) for path in paths] == ["angry/a.wav"]
    assert skipped == 0


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path: Path) -> None:
    touch(tmp_path, ".clips/angry/a.wav")
    assert len(find_clips(str(tmp_path / ".clips")).clips) == 1


def test_files_are_told_by_their_suffix_whatever_its_case(tmp_path: Path) -> None:
    audio = ["a.wav", "b.WAV", "c.Flac", "d.ogg", "e.opus", "f.mp3", "g.aiff", "h.aif"]
    touch(tmp_path, *audio, "i.txt", "j.wav.part", "k", "wav")
    walk = Walk(str(tmp_path))
    paths, skipped = list(walk), walk.other
    assert [Path(path).name for path in paths] == audio
    assert skipped == 4


def test_walking_gives_the_same_order_however_the_files_were_made(tmp_path: Path) -> None:
    names = [f"{folder}/{name}.wav" for folder in ("b", "a", "c/x") for name in ("2", "10", "1")]
    touch(tmp_path / "one", *names)
    touch(tmp_path / "two", *reversed(names))
    one, two = (
        [os.path.relpath(path, tmp_path / root) for path in Walk(str(tmp_path / root))]
        for root in ("one", "two")
    )
    assert one == two
    assert sorted(one) == sorted(names)


def test_a_loop_of_links_ends_and_gives_each_clip_once(tmp_path: Path) -> None:
    touch(tmp_path, "angry/a.wav", "sad/b.wav")
    (tmp_path / "angry" / "up").symlink_to(tmp_path)
    (tmp_path / "sad" / "self").symlink_to(tmp_path / "sad")
    paths = list(Walk(str(tmp_path)))
    assert sorted(Path(path).name for path in paths) == ["a.wav", "b.wav"]


def test_a_folder_is_looked_into_when_its_turn_comes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "a/2.wav", "a/notes.txt", "b/3.wav")
    walk = Walk(str(tmp_path))
    paths = iter(walk)

    assert [Path(next(paths)).name, Path(next(paths)).name] == ["1.wav", "2.wav"]
    assert walk.other == 0
    touch(tmp_path, "b/4.wav")
    assert [Path(path).name for path in paths] == ["3.wav", "4.wav"]
    assert walk.other == 1
    assert len(list(walk)) == 4
    assert walk.other == 1


def test_folders_are_walked_however_deep_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/" * 300 + "clip.wav")
    limit = sys.getrecursionlimit()

    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        walk = Walk(str(tmp_path))
        paths = list(walk)
    finally:
        sys.setrecursionlimit(limit)

    assert (len(paths), walk.unreadable) == (1, [])


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/x.wav", "store/y.wav", "data/sad/z.wav")
    (tmp_path / "data" / "angry").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "sad" / "linked.wav").symlink_to(tmp_path / "store" / "x.wav")
    corpus = find_clips(str(tmp_path / "data"))
    assert found(tmp_path / "data", corpus.clips) == {
        "angry/x.wav": ("angry", None),
        "angry/y.wav": ("angry", None),
        "sad/linked.wav": ("sad", None),
        "sad/z.wav": ("sad", None),
    }


def test_a_name_that_is_no_utf8_comes_back_as_it_is_on_the_disk(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/angry/caf\xe9 [1]\n.wav"
    touch(tmp_path, "angry/a.wav")
    Path(os.fsdecode(name)).touch()
    paths = list(Walk(str(tmp_path)))
    assert name in [os.fsencode(path) for path in paths]


@pytest.mark.skipif(os.geteuid() == 0, reason="root enters every folder")
def test_a_folder_that_may_not_be_entered_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0)
    with pytest.raises(AccessError, match=r"cannot read .*shut: permission denied"):
        list(Walk(str(tmp_path / "shut")))
    (tmp_path / "shut").chmod(0o700)


def test_walking_what_is_not_there_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="no such file"):
        list(Walk(str(tmp_path / "gone")))


# --- one folder a label


@pytest.mark.parametrize(
    ("name", "label", "speaker"),
    [
        ("angry/a.wav", "angry", None),
        ("Anger/a.wav", "angry", None),
        ("PS/a.wav", "surprised", None),
        ("fear/anna/a.wav", "fearful", "anna"),
        ("anna/fear/a.wav", "fearful", "anna"),
        ("study/anna/fear/a.wav", "fearful", None),
        ("study/fear/anna/a.wav", "fearful", None),
        ("happy/sad/a.wav", "sad", "happy"),  # the deepest one wins
    ],
)
def test_the_folder_that_names_an_emotion_is_the_label_and_the_other_the_speaker(
    name: str, label: str, speaker: str | None, tmp_path: Path
) -> None:
    touch(tmp_path, name)
    corpus = find_clips(str(tmp_path))
    assert corpus.layout == "folders"
    assert found(tmp_path, corpus.clips) == {name: (label, speaker)}
    assert corpus.speakers == ((speaker,) if speaker else ())


def test_synonyms_in_two_folders_are_one_label(tmp_path: Path) -> None:
    touch(tmp_path, "Anger/a.wav", "angry/b.wav", "joy/c.wav", "happiness/d.wav")
    assert find_clips(str(tmp_path)).labels == ("happy", "angry")


def test_clips_outside_the_emotion_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "angry/a.wav", "unsorted/b.wav", "c.wav", "angry/readme.txt")
    corpus = find_clips(str(tmp_path))
    assert found(tmp_path, corpus.clips) == {"angry/a.wav": ("angry", None)}
    assert sorted(corpus.skipped.values()) == [1, 2]


def test_without_emotion_words_the_topmost_folder_is_the_label(tmp_path: Path) -> None:
    names = ["Boredom/a.wav", "Boredom/anna/b.wav", "awe/anna/old/c.wav"]
    touch(tmp_path, *names, "loose.wav")
    corpus = find_clips(str(tmp_path))
    assert found(tmp_path, corpus.clips) == {
        names[0]: ("boredom", None),
        names[1]: ("boredom", "anna"),
        names[2]: ("awe", None),
    }
    assert corpus.labels == ("awe", "boredom")
    assert list(corpus.skipped.values()) == [1]


def test_an_emotion_in_the_path_to_the_data_is_no_label(tmp_path: Path) -> None:
    touch(tmp_path, "angry/yes/a.wav", "angry/no/b.wav")
    assert find_clips(str(tmp_path / "angry")).labels == ("no", "yes")


@pytest.mark.parametrize("shape", ["{}", "{}/", "./{}", "../{0}/../{0}"])
def test_relative_folders_work(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/angry/a.wav")
    monkeypatch.chdir(tmp_path / "data" if shape.startswith("..") else tmp_path)
    corpus = find_clips(shape.format("data"))
    assert [clip.label for clip in corpus.clips] == ["angry"]
    assert Path(corpus.clips[0].path).exists()


# --- nothing there


def test_data_that_does_not_exist_is_no_input_and_says_where_to_get_some() -> None:
    with pytest.raises(NoInputError, match="gone does not exist") as caught:
        find_clips("gone")
    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.NO_INPUT


def test_an_empty_folder_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no labelled clip in .*it is empty.*manifest\.csv"):
        find_clips(str(tmp_path))


def test_a_folder_without_labels_says_what_was_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "c.txt")
    with pytest.raises(NoInputError, match=r"no labelled clip in .*1 not audio.*2 in no folder"):
        find_clips(str(tmp_path))


def test_one_clip_as_data_points_to_predict(tmp_path: Path) -> None:
    touch(tmp_path, "clip.wav")
    with pytest.raises(NoInputError, match=r"clip\.wav is a file.*speechemo predict"):
        find_clips("clip.wav")


# --- what stops it


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_said(tmp_path: Path) -> None:
    (tmp_path / "shut" / "in").mkdir(parents=True)
    (tmp_path / "shut" / "in").chmod(0)
    try:
        walk = Walk(str(tmp_path))
        assert list(walk) == []
        assert walk.unreadable == [str(tmp_path / "shut" / "in")]
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
    walk = Walk(str(tmp_path))

    assert list(walk) == [str(tmp_path / "b" / "clip.wav")]
    assert walk.unreadable == [str(tmp_path / "a")]


@pytest.mark.parametrize("label", ["sad\nhappy", "\x1b[31mhappy", "x" * 101])
def test_a_label_that_no_table_can_show_is_refused_before_anything_is_trained_on_it(
    tmp_path: Path, label: str
) -> None:
    (tmp_path / label).mkdir()
    (tmp_path / label / "a.wav").touch()

    with pytest.raises(
        DataError, match=r"cannot be a label, expected up to 100 printable characters\. Rename"
    ) as e:
        find_clips(str(tmp_path))

    assert str(e.value).isprintable()


@pytest.mark.parametrize("label", ["path", "Error", "speech_share", "uncertain"])
def test_a_label_that_answers_have_as_a_column_is_refused_too(tmp_path: Path, label: str) -> None:
    (tmp_path / label).mkdir()
    (tmp_path / label / "a.wav").touch()

    with pytest.raises(
        DataError, match=rf"^{label.lower()} cannot be a label, which stands for something else in"
    ):
        find_clips(str(tmp_path))


def test_a_folder_for_each_of_a_thousand_files_is_no_set_of_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"label{i}/a.wav" for i in range(1001)))

    with pytest.raises(DataError, match="1001 labels, expected at most 1000"):
        find_clips(str(tmp_path))
