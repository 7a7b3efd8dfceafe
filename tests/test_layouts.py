"""From a folder or a manifest to labelled clips."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from conftest import touch

from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED, Clip
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.layouts import SUNG, VIDEO_TOO, find_clips
from speechemo_cli.errors import ConfigError, DataError, ExitCode, NoInputError


def found(root: Path, clips: tuple[Clip, ...]) -> dict[str, tuple[str, str | None]]:
    return {os.path.relpath(clip.path, root): (clip.label, clip.speaker) for clip in clips}


# --- names of public corpora


def test_find_clips_knows_the_names_of_public_corpora_at_any_depth(tmp_path: Path) -> None:
    names = {
        "03-01-01-01-01-01-01.wav": ("neutral", "01", "ravdess"),
        "Actor_02/03-01-03-01-01-01-02.flac": ("happy", "02", "ravdess"),
        "a/b/c/d/03-01-05-01-01-01-03.WAV": ("angry", "03", "ravdess"),
        "Crema/1001_DFA_SAD_XX.wav": ("sad", "1001", "crema-d"),
        "Savee/DC_su01.wav": ("surprised", "DC", "savee"),
        "Tess/OAF_Fear/OAF_back_fear.wav": ("fearful", "OAF", "tess"),
    }
    touch(tmp_path, *names)
    corpus = find_clips(str(tmp_path))
    assert {
        os.path.relpath(clip.path, tmp_path): (clip.label, clip.speaker, clip.corpus) for clip in corpus
    } == names
    assert corpus.skipped == {}
    assert corpus.counts.labels["ravdess"] == {"neutral": 1, "happy": 1, "angry": 1}
    assert corpus.counts.speakers["ravdess"] == {"01": 1, "02": 1, "03": 1}


def test_find_clips_finds_the_demo_corpus_whole(corpus_folder: Path) -> None:
    corpus = find_clips(str(corpus_folder))
    assert set(corpus.counts.labels["ravdess"]) == set(EMOTIONS)
    assert Counter(clip.speaker for clip in corpus) == {f"{actor:02d}": 60 for actor in range(1, 5)}
    assert len({clip.path for clip in corpus}) == len(corpus) == 240


def test_find_clips_decides_each_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, "angry/03-01-05-01-01-01-01.wav", "angry/own.wav", "sad/own.wav")
    corpus = find_clips(str(tmp_path))
    assert found(tmp_path, tuple(corpus)) == {
        "angry/03-01-05-01-01-01-01.wav": ("angry", "01"),
        "angry/own.wav": ("angry", None),
        "sad/own.wav": ("sad", None),
    }


def test_find_clips_leaves_sung_clips_out_and_counts_them_unless_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "03-01-04-01-01-01-01.wav", "03-02-04-01-01-01-01.wav", "03-02-03-01-01-01-01.wav")
    corpus = find_clips(str(tmp_path))
    assert [clip.song for clip in corpus] == [False]
    assert corpus.skipped == {SUNG: 2}
    with_song = find_clips(str(tmp_path), song=True)
    assert sorted(clip.song for clip in with_song) == [False, True, True]
    assert with_song.skipped == {}


def test_find_clips_takes_a_recording_before_the_video_of_the_same(tmp_path: Path) -> None:
    both = ["v/01-01-05-02-01-01-12.wav", "w/03-01-05-02-01-01-12.wav"]
    touch(tmp_path, *both, "v/01-01-05-02-01-01-13.wav", "v/02-01-05-02-01-01-13.wav")
    corpus = find_clips(str(tmp_path))
    assert found(tmp_path, tuple(corpus)) == {
        "v/01-01-05-02-01-01-13.wav": ("angry", "13"),
        "w/03-01-05-02-01-01-12.wav": ("angry", "12"),
    }
    assert corpus.skipped[VIDEO_TOO] == 1
    assert sum(corpus.skipped.values()) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["03-01-04-01-01-01-01.wav", "a/03-01-05-01-01-01-02.wav", "03-02-04-01-01-01-01.wav", "other.wav"],
        ["angry/a.wav", "sad/anna/b.wav", "c.wav"],
        ["one_angry.wav", "two_sad.wav", "c.wav"],
    ],
)
def test_corpus_can_be_gone_through_again_and_again(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    corpus = find_clips(str(tmp_path))
    assert tuple(corpus) == tuple(corpus)
    assert len(corpus) == len(tuple(corpus)) == 2
    assert corpus.skipped[NO_LABEL] == 1
    assert Path(corpus.examples[NO_LABEL]).name in ("other.wav", "c.wav")


def test_find_clips_says_why_a_folder_of_nothing_but_song_is_empty(tmp_path: Path) -> None:
    touch(tmp_path, "03-02-04-01-01-01-01.wav")
    with pytest.raises(NoInputError, match="1 sung"):
        find_clips(str(tmp_path))


def test_find_clips_reads_a_hidden_folder_that_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, ".clips/angry/a.wav")
    assert len(find_clips(str(tmp_path / ".clips"))) == 1


# --- expressions


def test_find_clips_takes_label_and_speaker_from_expressions(tmp_path: Path) -> None:
    touch(tmp_path, "P1-x/Wut_1.wav", "P2-x/hmm_2.wav", "P2-x/__.wav")
    corpus = find_clips(str(tmp_path), label_from=r"/(?P<label>[A-Za-z]+)_\d", speaker_from=r"^(P\d)-")
    assert found(tmp_path, tuple(corpus)) == {
        "P1-x/Wut_1.wav": ("angry", "P1"),
        "P2-x/hmm_2.wav": ("hmm", "P2"),
    }
    assert corpus.skipped == {NOT_MATCHED: 1}


def test_find_clips_takes_expressions_before_names_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "set_b/1001_DFA_ANG_XX.wav", "set_b/ann/sad/1.wav")
    corpus = find_clips(str(tmp_path), label_from="_(b)/", speaker_from="([^/]+)$")
    assert found(tmp_path, tuple(corpus)) == {
        "set_b/1001_DFA_ANG_XX.wav": ("b", "1001_DFA_ANG_XX.wav"),
        "set_b/ann/sad/1.wav": ("b", "1.wav"),
    }


def test_find_clips_says_that_an_expression_matches_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.wav")
    with pytest.raises(NoInputError, match=r"--label-from matches no path .*the first is x/1\.wav"):
        find_clips(str(tmp_path), label_from="(angry)")


@pytest.mark.parametrize(("text", "message"), [("(", "regular expression"), ("angry", "a group")])
def test_find_clips_refuses_an_expression_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"--label-from is .*expected {message}|expected a {message}"):
        find_clips(str(tmp_path), label_from=text)
    with pytest.raises(ConfigError, match="--speaker-from is"):
        find_clips(str(tmp_path), speaker_from=text)


# --- folders of people's own; what their levels mean is tested in test_folders


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/x.wav", "store/y.wav", "data/sad/z.wav")
    (tmp_path / "data" / "angry").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "sad" / "linked.wav").symlink_to(tmp_path / "store" / "x.wav")
    corpus = find_clips(str(tmp_path / "data"))
    assert found(tmp_path / "data", tuple(corpus)) == {
        "angry/x.wav": ("angry", None),
        "angry/y.wav": ("angry", None),
        "sad/linked.wav": ("sad", None),
        "sad/z.wav": ("sad", None),
    }


@pytest.mark.parametrize("shape", ["{}", "{}/", "./{}", "../{0}/../{0}"])
def test_relative_folders_work(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/angry/a.wav")
    monkeypatch.chdir(tmp_path / "data" if shape.startswith("..") else tmp_path)
    corpus = find_clips(shape.format("data"))
    assert [clip.label for clip in corpus] == ["angry"]
    assert Path(next(iter(corpus)).path).exists()


# --- nothing there


def test_find_clips_says_where_to_get_data_that_is_not_there() -> None:
    with pytest.raises(NoInputError, match=r"gone does not exist.*speechemo download ravdess") as caught:
        find_clips("gone")
    assert caught.value.exit_code == ExitCode.NO_INPUT


def test_find_clips_says_that_a_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no labelled clip in .*it is empty.*manifest\.csv"):
        find_clips(str(tmp_path))


@pytest.mark.parametrize("data", ["clips.zip", "."])
def test_find_clips_says_to_unzip_an_archive(data: str, tmp_path: Path) -> None:
    touch(tmp_path, "clips.zip")
    with pytest.raises(NoInputError, match=r"Unzip it.*--archive (\./)?clips\.zip"):
        find_clips(data)


def test_find_clips_points_to_predict_for_one_clip(tmp_path: Path) -> None:
    touch(tmp_path, "clip.wav")
    with pytest.raises(NoInputError, match=r"clip\.wav is a file.*speechemo predict"):
        find_clips("clip.wav")


def test_find_clips_guesses_no_label_but_lists_the_folders_and_the_ways_out(tmp_path: Path) -> None:
    touch(tmp_path, "DC/1/x.wav", "JE/2/y.wav", "z.wav")
    with pytest.raises(NoInputError, match=r"no label is known for the 3 audio files") as caught:
        find_clips(str(tmp_path))
    assert "level 1: DC, JE; level 2: 1, 2" in str(caught.value)
    for way in ("--label-from", "--speaker-from", "--manifest-template"):
        assert way in str(caught.value)


def test_find_clips_says_where_iemocap_has_its_labels(tmp_path: Path) -> None:
    touch(tmp_path, "Session1/Ses01F_impro01_F000.wav")
    with pytest.raises(NoInputError, match="EmoEvaluation"):
        find_clips(str(tmp_path))
    touch(tmp_path, "ang/Ses01F_impro01_F001.wav")
    assert [(clip.label, clip.speaker, clip.corpus) for clip in find_clips(str(tmp_path))] == [
        ("angry", "Ses01F", "iemocap")
    ]


# --- what stops it


@pytest.mark.parametrize("label", ["sad\nhappy", "\x1b[31mhappy", "x" * 101])
def test_a_label_that_no_table_can_show_is_refused_before_anything_is_trained_on_it(
    tmp_path: Path, label: str
) -> None:
    touch(tmp_path, f"{label}/a.wav", "sad/b.wav", "angry/c.wav")

    with pytest.raises(
        DataError, match=r"cannot be a label, expected up to 100 printable characters\. Rename"
    ) as e:
        find_clips(str(tmp_path))

    assert str(e.value).isprintable()


@pytest.mark.parametrize("label", ["path", "Error", "speech_share", "uncertain"])
def test_a_label_that_answers_have_as_a_column_is_refused_too(tmp_path: Path, label: str) -> None:
    touch(tmp_path, f"{label}/a.wav", "sad/b.wav", "angry/c.wav")

    with pytest.raises(
        DataError, match=rf"^{label.lower()} cannot be a label, which stands for something else in"
    ):
        find_clips(str(tmp_path))


def test_a_folder_for_each_of_a_thousand_files_is_no_set_of_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"label{i}/a.wav" for i in range(1001)))

    with pytest.raises(NoInputError, match=r"no label is known for the 1001 audio files .*\(1001 in all\)"):
        find_clips(str(tmp_path))
