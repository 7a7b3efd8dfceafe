"""Lists of recordings as spreadsheets, Windows and Kaggle write them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import touch

from speechemo_cli.cli import app
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.layouts import find_clips
from speechemo_cli.corpus.manifest import write_template
from speechemo_cli.errors import AccessError, ConfigError, DataError, NoInputError

RAW = os.fsdecode(b"caf\xe9.wav")
NAMES = ("a.wav", "sub/b.wav", "J\u00fcrgen 1.wav", "sub\\c.wav", "\u00fc.wav", "o\u0308.wav", RAW)


@pytest.fixture(autouse=True)
def _recordings(tmp_path: Path) -> None:
    """Make empty files: a manifest is read without opening them."""
    touch(tmp_path, *NAMES)


def read(content: str | bytes, name: str = "list.csv", *, song: bool = False) -> tuple[Clip, ...]:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tuple(find_clips(name, song=song))


PLAIN = "path,label,speaker\na.wav,sad,ann\nsub/b.wav,happy,bob\nJ\u00fcrgen 1.wav,boredom,\n"
EXPECTED = (
    Clip("a.wav", "sad", "ann"),
    Clip("sub/b.wav", "happy", "bob"),
    Clip("J\u00fcrgen 1.wav", "boredom"),
)


# --- how it is written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-be", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_read_takes_every_encoding_line_end_and_mark(encoding: str, end: str, mark: str) -> None:
    text = PLAIN.replace(",", mark).replace("\n", end)
    order_mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    name = "list.TSV" if mark == "\t" else "list.CSV"
    assert read(order_mark + text.encode(encoding), name) == EXPECTED
    notes = "; ".join(find_clips(name).notes)
    assert ("read as Windows-1252: J\u00fcrgen 1.wav" in notes) if encoding == "cp1252" else not notes


@pytest.mark.parametrize(
    "header",
    [
        *("Path,Label,Speaker", " path , label , speaker ", '"wav","Emotion","spk"'),
        *("filename,emotion,actor", "File Name,Emotions,Speaker-ID", "file_path,class,actor_id"),
    ],
)
def test_read_knows_the_columns_by_many_names(header: str) -> None:
    assert read(PLAIN.replace("path,label,speaker", header)) == EXPECTED


A, B = Clip("a.wav", "sad"), Clip("sub/b.wav", "sad")


def having(clip: Clip, **columns: str) -> Clip:
    return replace(clip, extra=tuple(columns.items()))


HEAD = "path,label,speaker,dataset,Sex,intensity,statement,repetition,song,age"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # Of two columns that could be meant the one with the plain name.
        ("filename,path,emotion,label\nx,a.wav,3,sad\n", [having(A, filename="x", emotion="3")]),
        # The header alone tells the mark.
        ('path,"label",remark\na.wav,sad,one; two; 3\n', [having(A, remark="one; two; 3")]),
        ('path, label,speaker\n"b, c.wav", Anger ,\n a.wav , sad, \n', [Clip("b, c.wav", "angry"), A]),
        # Empty rows, and columns without a name.
        (",filename,emotion,\n\n0,a.wav,sad,\n,,,\n \n1,sub/b.wav,sad,,\n", [A, B]),
        (
            f"{HEAD}\na.wav,sad,ann,study,Female,strong,2,1,no,31\nsub/b.wav,sad,,,,,,,,\n",
            [having(Clip("a.wav", "sad", "ann", "f", 2, 2, 1, corpus="study"), age="31"), B],
        ),
        # Values of another kind make a whole column a further one.
        (
            "path,label,gender,intensity\na.wav,sad,f,low\nsub/b.wav,sad,other,1\n",
            [having(A, gender="f", intensity="low"), having(B, gender="other", intensity="1")],
        ),
        # A recording that is missing among others keeps its name.
        ("path,label\nx/a.wav,sad\nsub/b.wav,sad\n", [Clip("x/a.wav", "sad"), B]),
        ("path,label\nsub\\b.wav,sad\n", [B]),
        ("path,label\nsub\\c.wav,sad\n", [Clip("sub\\c.wav", "sad")]),
        # An umlaut in the other normal form; names that are no UTF-8, alone and beside such.
        ("path,label\nu\u0308.wav,sad\n", [Clip("\u00fc.wav", "sad")]),
        ("path,label\n\u00f6.wav,sad\n", [Clip("o\u0308.wav", "sad")]),
        (b"path,label\ncaf\xe9.wav,sad\n", [Clip(RAW, "sad")]),
        (b"path,label,speaker\ncaf\xe9.wav,sad,J\xc3\xbcrgen\n", [Clip(RAW, "sad", "J\u00fcrgen")]),
    ],
)
def test_read_gives_the_clips_of_a_list(content: str | bytes, expected: list[Clip]) -> None:
    assert read(content) == tuple(expected)


# --- where the recordings are


def test_read_counts_paths_from_the_folder_of_the_manifest(tmp_path: Path) -> None:
    clips = read(f"path,label\nb.wav,sad\n{tmp_path / 'a.wav'},happy\n", "sub/list.csv")
    assert [Path(clip.path) for clip in clips] == [Path("sub/b.wav"), tmp_path / "a.wav"]


@pytest.mark.parametrize("folder", ["C:\\Users\\ann\\data\\", "/kaggle/input/data/", "data/"])
def test_read_takes_the_folder_of_the_manifest_for_one_that_is_not_here_and_says_so(folder: str) -> None:
    clips = read(f"path,label\n{folder}sub{folder[-1]}b.wav,sad\n{folder}a.wav,happy\n")
    assert [clip.path for clip in clips] == ["sub/b.wav", "a.wav"]
    (note,) = find_clips("list.csv").notes
    assert f"{folder} is not there, the manifest's folder is taken for it" in note


def test_find_clips_takes_a_manifest_in_a_folder_before_the_names_in_it(tmp_path: Path) -> None:
    (tmp_path / "03-01-01-01-01-01-01.wav").touch()
    read("path,label\n03-01-01-01-01-01-01.wav,sad\n", "manifest.csv")
    assert [clip.label for clip in find_clips(str(tmp_path))] == ["sad"]


def test_find_clips_leaves_sung_clips_of_a_manifest_out_unless_asked_for() -> None:
    text = "path,label,song\na.wav,sad,yes\nsub/b.wav,sad,0\n"
    assert [clip.path for clip in read(text)] == ["sub/b.wav"]
    assert list(find_clips("list.csv").skipped.values()) == [1]
    assert [clip.song for clip in read(text, song=True)] == [True, False]


def test_read_counts_a_recording_once_that_is_listed_again_the_same_way_and_says_so() -> None:
    assert len(read("path,label\na.wav,sad\n./a.wav,Sadness\nsub/b.wav,sad\n")) == 2
    assert find_clips("list.csv").notes == ["left out: 1 of 3 rows, which list a recording again"]


# --- what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column 'path', found nothing"),
        ("x,label\na.wav,sad\n", "no column 'path', found x, label"),
        ("path,mood\na.wav,sad\n", "no column 'label', found path, mood"),
        ("path,label,Label\na.wav,sad,sad\n", "two columns for the label: label and Label"),
        ("file,filename,label\na.wav,a.wav,sad\n", "two columns for the path: file and filename"),
        ("path,label,age,age\na.wav,sad,3,4\n", "two columns for the age"),
        ("path,label\na.wav,sad\nsub/b.wav,\n", r"line 3: path or label is empty \(1 such rows\)"),
        ("path,label\n\n ,sad\na.wav,sad\n", "line 3: path or label is empty"),
        ("path,label\na.wav\nsub/b.wav,sad\n", "line 2: path or label is empty"),
        ("path,label,speaker\na.wav,,ann\nsub/b.wav,,\n", "the column 'label' is still empty. Fill it in"),
        ("path,label\na.wav,sad\n\nb,c.wav,x\n", "line 4: 3 values, and the header has 2. Put .* in quotes"),
        ('path,label\na.wav,sad\n"sub/b.wav,sad\n', "line 3: not a CSV file: a quote is not closed"),
        ("path,label\n" + "a" * 200_000 + ",sad\n", "line 2: not a CSV file: field larger"),
        ("path,label\na.wav,sad\nsub/b\0.wav,sad\n", "line 3: a NUL character"),
        (PLAIN.encode("utf-16-le"), "line 1: a NUL character. Save it as CSV UTF-8"),
        (b"path,label\n\x81.wav,sad\n", "cannot be read as text"),
        (PLAIN.encode("utf-16") + b"\n", "cannot be read as text"),
        ("path,label\na.wav,sad\n\n./a.wav,happy\n", r"line 4: \./a\.wav has the label happy, in line 2 sad"),
        ("path,label,speaker\na.wav,sad,\na.wav,sad,bob\n", "has the speaker bob, in line 2 unknown"),
        ("path,label,corpus\na.wav,sad,x/y\n", "line 2: the name of a corpus holds a /"),
    ],
)
def test_read_says_what_a_manifest_lacks_and_where(content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^list\.csv.*{message}") as caught:
        read(content)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\n\n,\n", r"list\.csv lists no clip"),
        ("path,label,song\na.wav,sad,1\n", r"sung clips alone\. --song"),
        ("path,label\nx/1.wav,sad\n", r"lists 1 recordings, and none is there.* x/1\.wav\. Paths count"),
    ],
)
def test_read_says_why_a_manifest_is_no_input(content: str, message: str) -> None:
    with pytest.raises(NoInputError, match=message):
        read(content)


def test_read_does_not_wait_for_a_pipe_without_a_writer() -> None:
    os.mkfifo("list.csv")
    with pytest.raises(AccessError, match="not a regular file"):
        find_clips("list.csv")


# --- one to fill in


def test_write_template_writes_what_can_be_read_again() -> None:
    clips = [("sub/b.wav", "sad", "ann"), ("J\u00fcrgen 1.wav", "happy", ""), (RAW, "sad", "")]
    write_template(Path("sub/new.csv"), clips)
    found = find_clips("sub/new.csv")
    assert [(os.path.normpath(clip.path), clip.label, clip.speaker or "") for clip in found] == clips


def test_write_template_leaves_columns_to_fill_in_which_are_refused_until_then() -> None:
    write_template(Path("new.csv"), [("a.wav", "", "")])
    assert Path("new.csv").read_bytes() == b"\xef\xbb\xbfpath,label,speaker\r\na.wav,,\r\n"
    with pytest.raises(DataError, match=r"new\.csv: the column 'label' is still empty"):
        find_clips("new.csv")

    Path("link.csv").symlink_to("not-there")
    with pytest.raises(ConfigError, match=r"link\.csv exists already"):
        write_template(Path("link.csv"), [("a.wav", "", "")])
    assert not Path("not-there").exists()


def test_extract_writes_a_template_of_what_it_finds_and_computes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    touch(data, "happy/ann/1.wav", "happy/bob/1.wav", "2.wav", "notes.txt")

    code = app.run(["extract", "data", "--manifest-template", "lists.csv"])
    again = app.run(["extract", "data", "--manifest-template", "lists.csv"])

    out, err = capsys.readouterr()
    assert (code, again, out) == (0, 2, "")
    assert "lists.csv: 3 recordings, 1 without a label. Fill in" in err
    assert "lists.csv exists already" in err
    rows = Path("lists.csv").read_text(encoding="utf-8-sig").splitlines()
    names = ("ann", "bob")
    assert sorted(rows[1:]) == ["data/2.wav,,", *(f"data/happy/{who}/1.wav,happy,{who}" for who in names)]
    assert not Path("features").exists()
