"""Several DATA as one collection: names of corpora, speakers of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import touch

from speechemo_cli.corpus.clips import Clip, corpus_names, speaker_names
from speechemo_cli.corpus.layouts import find_all
from speechemo_cli.errors import NoInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    WriteClip = Callable[..., Path]


def write_manifest(path: str, *rows: str) -> None:
    touch(".", *(str(Path(path).parent / row.split(",")[0]) for row in rows))
    Path(path).write_text("\n".join(["path,label,speaker", *rows]))


def test_find_all_joins_folders_and_manifests_and_names_their_corpora() -> None:
    touch(".", "data/actors/03-01-05-02-01-01-12.wav", "data/own/angry/anna/1.wav", "data/own/sad/ben/2.wav")
    write_manifest("data/nemo/manifest.csv", "a.ogg,sad,12")
    write_manifest("lists/emodb.csv", "b.wav,bored,12")
    found = find_all(["data/actors", "data/own", "data/nemo", "lists/emodb.csv"])
    assert [(clip.label, clip.speaker_id) for clip in found.clips] == [
        ("angry", "ravdess/12"),
        ("angry", "own/anna"),
        ("sad", "own/ben"),
        ("sad", "nemo/12"),
        ("boredom", "emodb/12"),
    ]
    assert len(found) == 5
    counts = found.counts()
    assert list(counts.speakers) == ["ravdess", "own", "nemo", "emodb"]
    assert counts.speakers["own"] == {"anna": 1, "ben": 1}
    assert counts.labels["own"] == {"angry": 1, "sad": 1}


def test_find_all_knows_ravdess_clips_that_a_manifest_lists() -> None:
    write_manifest("own.csv", "x/03-01-05-02-01-01-12.flac,happy,Actor_12", "x/other.wav,sad,Actor_12")
    found = find_all(["own.csv"])
    assert found.counts().speakers == {"ravdess": {"12": 1}, "own": {"Actor_12": 1}}
    ravdess, other = found.clips
    assert (ravdess.label, ravdess.speaker_id, ravdess.statement) == ("happy", "ravdess/12", 1)
    assert other.speaker_id == "own/Actor_12"


def test_find_all_takes_what_a_list_does_not_tell_from_the_names_of_public_corpora() -> None:
    write_manifest("own.csv", "1001_DFA_ANG_XX.wav,sad,", "1002_DFA_ANG_XX.wav,sad,ann")
    assert [(clip.label, clip.speaker_id) for clip in find_all(["own.csv"])] == [
        ("sad", "crema-d/1001"),
        ("sad", "own/ann"),
    ]


def test_find_all_takes_a_folder_that_is_named_twice_once() -> None:
    touch(".", "data/sad/1.wav", "data/angry/2.wav")
    Path("link").symlink_to("data")
    found = find_all(["data", "./data/", "link"])
    assert len(found) == 2
    assert {clip.corpus for clip in found} == {"data"}


def test_find_all_leaves_a_speaker_unknown() -> None:
    touch(".", "data/sad/1.wav")
    assert [clip.speaker_id for clip in find_all(["data"])] == [None]


def test_find_all_adds_up_what_was_left_out() -> None:
    touch(".", "a/sad/1.wav", "a/notes.txt", "b/sad/2.wav", "b/notes.txt")
    assert find_all(["a", "b"]).skipped == {"not audio, by the suffix": 2}


def test_find_all_names_the_data_that_is_not_there() -> None:
    touch(".", "a/sad/1.wav")
    with pytest.raises(NoInputError, match="gone does not exist"):
        find_all(["a", "gone"])


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
    counted = Counter(corpus_names(["a/x", "b/x", "x-2", "c/x"]))
    assert max(counted.values()) == 1


def test_speaker_id_of_a_clip_without_a_corpus_is_its_speaker() -> None:
    assert Clip("a.wav", "sad", "03").speaker_id == "03"


def test_speaker_names_are_bare_in_one_corpus_alone() -> None:
    assert speaker_names(["ravdess/01", "ravdess/02"]) == {"ravdess/01": "01", "ravdess/02": "02"}
    assert speaker_names(["a/01", "b/01"]) == {"a/01": "a/01", "b/01": "b/01"}
    assert speaker_names(["a/b/c"]) == {"a/b/c": "b/c"}
    assert speaker_names([]) == {}
