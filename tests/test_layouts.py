"""From folders and manifests to labelled clips, alone and together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import touch

from speechemo_cli.config import Config
from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED, Corpus
from speechemo_cli.corpus.layouts import SUNG, VIDEO_TOO, find_all, find_clips
from speechemo_cli.errors import ConfigError, DataError, NoInputError


def labels_and_speakers(root: Path | str, corpus: Corpus) -> dict[str, str]:
    """What is known of each clip, as "angry ann" or "angry", by path without the suffix; asked twice."""
    clips = tuple(corpus)
    assert tuple(corpus) == clips
    assert len(corpus) == len(clips)
    return {
        os.path.relpath(clip.path, root)[:-4]: " ".join(filter(None, (clip.label, clip.speaker)))
        for clip in clips
    }


# --- names of public corpora


def test_find_clips_knows_the_names_of_public_corpora_at_any_depth(tmp_path: Path) -> None:
    names = {
        "03-01-01-01-01-01-01.wav": ("neutral", "01", "ravdess"),
        "Actor_02/03-01-03-01-01-01-02.flac": ("happy", "02", "ravdess"),
        "a/b/c/d/03-01-05-01-01-01-03.WAV": ("angry", "03", "ravdess"),
        "Crema/1001_DFA_SAD_XX.wav": ("sad", "1001", "crema-d"),
        "Savee/DC/su01.wav": ("surprised", "DC", "savee"),
        "Tess/OAF_Fear/OAF_back_fear.wav": ("fearful", "OAF", "tess"),
    }
    touch(tmp_path, *names)
    corpus = find_clips(str(tmp_path))
    assert {
        os.path.relpath(clip.path, tmp_path): (clip.label, clip.speaker, clip.corpus) for clip in corpus
    } == names
    assert corpus.skipped == {}
    assert corpus.counts == {(corpus, label, speaker): 1 for label, speaker, corpus in names.values()}


def test_find_clips_leaves_sung_clips_out_and_counts_them_unless_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "03-01-04-01-01-01-01.wav", "03-02-04-01-01-01-01.wav", "03-02-03-01-01-01-01.wav")
    corpus, with_song = find_clips(str(tmp_path)), find_clips(str(tmp_path), song=True)
    assert [clip.song for clip in corpus] == [False]
    assert corpus.skipped == {SUNG: 2}
    assert sorted(clip.song for clip in with_song) == [False, True, True]
    assert with_song.skipped == {}


def test_find_clips_takes_a_recording_before_the_video_of_the_same(tmp_path: Path) -> None:
    both = ["v/01-01-05-02-01-01-12.wav", "w/03-01-05-02-01-01-12.wav"]
    touch(tmp_path, *both, "v/01-01-05-02-01-01-13.wav", "v/02-01-05-02-01-01-13.wav")
    corpus = find_clips(str(tmp_path))
    assert labels_and_speakers(tmp_path, corpus) == {
        "v/01-01-05-02-01-01-13": "angry 13",
        "w/03-01-05-02-01-01-12": "angry 12",
    }
    assert corpus.skipped[VIDEO_TOO] == 1
    assert sum(corpus.skipped.values()) == 2


# --- expressions


def test_find_clips_takes_label_and_speaker_from_expressions_before_names_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "P1-x/Wut_1.wav", "P2-x/hmm_2.wav", "P2-x/__.wav")
    touch(tmp_path, "set_b/1001_DFA_ANG_XX.wav", "set_b/ann/sad/1.wav")
    corpus = find_clips(str(tmp_path), label_from=r"/(?P<label>[A-Za-z]+)_\d", speaker_from=r"^(P\d)-")
    assert labels_and_speakers(tmp_path, corpus) == {"P1-x/Wut_1": "angry P1", "P2-x/hmm_2": "hmm P2"}
    assert corpus.skipped == {NOT_MATCHED: 3}
    corpus = find_clips(str(tmp_path), label_from="_(b)/", speaker_from="([^/]+)$")
    assert labels_and_speakers(tmp_path, corpus) == {
        "set_b/1001_DFA_ANG_XX": "b 1001_DFA_ANG_XX.wav",
        "set_b/ann/sad/1": "b 1.wav",
    }


@pytest.mark.parametrize(("text", "message"), [("(", "regular expression"), ("angry", "a group")])
def test_find_clips_refuses_an_expression_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"--label-from is .*expected {message}|expected a {message}"):
        find_clips(str(tmp_path), label_from=text)
    with pytest.raises(ConfigError, match="--speaker-from is"):
        find_clips(str(tmp_path), speaker_from=text)


# --- folders of people's own


@pytest.mark.parametrize(
    "names",
    [
        {"angry/a": "angry", "Fear/b": "fearful"},
        {"fear/anna/a": "fearful anna", "sad/bob/b": "sad bob"},
        {"anna/fear/a": "fearful anna", "bob/sad/b": "sad bob"},
        # levels that say how recordings are kept
        {"train/s1/angry/a": "angry s1", "test/s2/sad/b": "sad s2", "val/s1/sad/c": "sad s1"},
        {"angry/male/m1/a": "angry m1", "sad/female/f2/b": "sad f2"},
        {"female/angry/a": "angry", "male/sad/b": "sad"},
        {"session1/angry/a": "angry", "session2/sad/b": "sad"},
        {"phone/angry/a": "angry", "studio/sad/b": "sad"},
        {"angry/level_1/a": "angry", "sad/level_2/b": "sad"},
        {"2019-05-06/angry/a": "angry", "2020-01-02/sad/b": "sad"},
        {"wav_16k/angry/a": "angry", "wav_16k/sad/b": "sad"},
        # levels with one folder alone
        {"study/ann/angry/a": "angry ann", "study/bob/sad/b": "sad bob"},
        {"anger_study/ann/sad/a": "sad ann", "anger_study/bob/happy/b": "happy bob"},
        {"speaker07/angry/a": "angry speaker07", "speaker07/sad/b": "sad speaker07"},
        {"angry/a": "angry", "angry/b": "angry"},
        # of several other levels the one that looks like speakers, else none
        {"lab1/Actor_01/angry/a": "angry Actor_01", "lab2/Actor_02/sad/b": "sad Actor_02"},
        {"red/ann/angry/a": "angry", "blue/bob/sad/b": "sad"},
        # words for emotions elsewhere than in labels
        {"Joy/angry/a": "angry Joy", "Ann/sad/b": "sad Ann", "Bob/sad/c": "sad Bob"},
        {"01_angry/a": "angry", "02_Pleasant_surprise/b": "surprised"},
        {"angry/a": "angry", "not_angry/b": "not_angry"},
        # words in the names of files
        {"20190610_angry": "angry", "20190611_sad": "sad"},
        {"speaker1/angry_01": "angry speaker1", "speaker2/sad_03": "sad speaker2"},
        {"happy_project/ann/x_sad": "sad ann", "happy_project/bob/x_angry": "angry bob"},
        {"angry/so_sad": "angry", "sad/so_happy": "sad"},
        # a folder for each clip is no speaker
        {f"{label}/rec{label}{i}/a": label for label in ("angry", "sad") for i in range(10)},
        # depths that differ, names of public corpora beside one's own
        {"angry/a": "angry", "sad/ann/b": "sad ann", "happy/bob/c": "happy bob"},
        {"angry/03-01-05-01-01-01-01": "angry 01", "angry/own": "angry", "sad/own": "sad"},
        {"ang/Ses01F_impro01_F001": "angry Ses01F", "sad/Ses01F_impro01_M001": "sad Ses01M"},
        # other languages, composed and decomposed
        {"Wut/a": "angry", "Colère/b": "angry", "Cole\u0300re/c": "angry"},
        {"愤怒/张/a": "angry 张", "高兴/李/b": "happy 李"},
        {"Angray/a": "angry", "Superise/b": "surprised", "ang/c": "angry"},
    ],
)
def test_read_folders_finds_labels_and_speakers(names: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / ".data"  # a hidden folder is read where it is asked for
    touch(root, *(f"{name}.wav" for name in names))
    assert labels_and_speakers(root, find_clips(str(root))) == names


def test_read_folders_takes_the_siblings_of_a_label_for_labels(tmp_path: Path) -> None:
    names = {"angry/a": "angry", "Boredom/b": "boredom", "Contempt/c": "contempt", "Grumpy/d": "grumpy"}
    touch(tmp_path, *(f"{name}.wav" for name in (*names, "unsorted/e", "loose")))
    corpus = find_clips(str(tmp_path))
    assert labels_and_speakers(tmp_path, corpus) == names
    assert corpus.skipped == {NO_LABEL: 2}
    assert corpus.examples[NO_LABEL] == str(tmp_path / "loose.wav")


@pytest.mark.parametrize(
    "names",
    [
        *(["yes/a", "no/b"], ["train/a", "test/b"], ["1/a", "2/b"], ["a", "b"]),
        *([f"{name}/a" for name in names.split()] for names in ("DC JE JK KL", "Joy Ann Bob Cy Dee")),
    ],
)
def test_read_folders_guesses_no_label_and_reads_the_path_below_the_data_alone(names: list[str]) -> None:
    touch("angry", *(f"{name}.wav" for name in names))
    with pytest.raises(NoInputError, match="no label is known"):
        find_clips("angry")


# --- nothing there, or nothing that can be used


@pytest.mark.parametrize(
    ("data", "files", "message"),
    [
        (".", [], r"no labelled clip in .*it is empty.*manifest\.csv"),
        (".", ["03-02-04-01-01-01-01.wav"], "1 sung"),
        (".", ["clips.zip"], r"Unzip it.*--archive \./clips\.zip"),
        ("clips.zip", ["clips.zip"], r"Unzip it.*--archive clips\.zip"),
        ("clip.wav", ["clip.wav"], r"clip\.wav is a file.*speechemo predict"),
        (".", ["Session1/Ses01F_impro01_F000.wav"], "EmoEvaluation"),
        ("gone", [], r"gone does not exist.*speechemo download ravdess"),
        (
            ".",
            ["DC/1/x.wav", "JE/2/y.wav", "z.wav"],
            r"no label is known for the 3 audio files in \.; their folders: level 1: DC, JE; level 2: 1, 2\. "
            "Tell the label by --label-from .*--speaker-from .*--manifest-template",
        ),
        (".", ["x/1.wav"], r"--label-from matches no path .*the first is x/1\.wav"),
        (".", [f"label{i}/a.wav" for i in range(1001)], r"known for the 1001 audio files .*\(1001 in all\)"),
    ],
)
def test_find_clips_says_why_there_is_no_clip(data: str, files: list[str], message: str) -> None:
    touch(".", *files)
    with pytest.raises(NoInputError, match=message):
        find_clips(data, label_from="(angry)" if message.startswith("--label-from") else None)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        *((label, "expected up to 100 printable") for label in ("sad\nhappy", "\x1b[31mhappy", "x" * 101)),
        *(
            (label, "which stands for something else")
            for label in ("path", "Error", "speech_share", "uncertain")
        ),
    ],
)
def test_find_clips_refuses_a_label_that_no_table_can_show(label: str, why: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{label}/a.wav", "sad/b.wav", "angry/c.wav")
    with pytest.raises(DataError, match=f"cannot be a label, {why} .*Rename") as caught:
        find_clips(str(tmp_path))
    assert str(caught.value).isprintable()


# --- several DATA together


def write_manifest(path: str, *rows: str) -> None:
    touch(".", *(str(Path(path).parent / row.split(",")[0]) for row in rows))
    Path(path).write_text("\n".join(["path,label,speaker", *rows]))


def test_find_all_joins_folders_and_manifests_and_names_their_corpora() -> None:
    touch(".", "data/actors/03-01-05-02-01-01-12.wav", "data/own/angry/anna/1.wav", "data/own/sad/ben/2.wav")
    touch(".", "data/actors/notes.txt", "data/own/notes.txt", "data/own/sad/3.wav")
    write_manifest("data/nemo/manifest.csv", "a.ogg,sad,12")
    write_manifest("lists/emodb.csv", "b.wav,bored,12")
    found = find_all(["data/actors", "data/own", "data/nemo", "lists/emodb.csv"], Config())
    assert [(clip.label, clip.speaker_id) for clip in found.clips] == [
        ("angry", "ravdess/12"),
        ("angry", "own/anna"),
        ("sad", None),
        ("sad", "own/ben"),
        ("sad", "nemo/12"),
        ("boredom", "emodb/12"),
    ]
    assert len(found) == 6
    assert found.skipped == {"not audio, by the suffix": 2}
    counts = found.counts()
    assert list(counts) == ["ravdess", "own", "nemo", "emodb"]
    assert counts["own"] == ({"angry": 1, "sad": 2}, {"anna": 1, None: 1, "ben": 1})


@pytest.mark.parametrize(
    ("row", "label", "speaker"),
    [
        ("03-01-05-02-01-01-12.flac,happy,Actor_12", "happy", "ravdess/12"),
        ("other.wav,sad,Actor_12", "sad", "own/Actor_12"),
        ("1001_DFA_ANG_XX.wav,sad,", "sad", "crema-d/1001"),
        ("1002_DFA_ANG_XX.wav,sad,ann", "sad", "own/ann"),
    ],
)
def test_find_all_knows_the_names_of_public_corpora_in_a_list(row: str, label: str, speaker: str) -> None:
    write_manifest("own.csv", row)
    found = find_all(["own.csv"], Config())
    (clip,) = found.clips
    corpus, _, name = speaker.partition("/")
    assert (clip.label, clip.speaker_id) == (label, speaker)
    assert (clip.statement is None) == (corpus == "own")
    assert found.counts() == {corpus: ({label: 1}, {name: 1})}


def test_find_all_takes_a_folder_once_however_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(".", "data/sad/1.wav", "data/angry/2.wav")
    Path("link").symlink_to("data")
    found = find_all(["data", "./data/", "link"], Config())
    assert len(found) == 2
    assert {clip.corpus for clip in found} == {"data"}
    monkeypatch.chdir("data")
    assert labels_and_speakers(".", find_clips("../data/../data/")) == {"sad/1": "sad", "angry/2": "angry"}
