"""Every way to name clips finds the same clips, in order, and nothing is lost or made up on the way."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import touch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechemo_cli.cli import inputs
from speechemo_cli.errors import AccessError, ConfigError, NoInputError


def paths(clips: list[str], files_from: str | None = None) -> list[str]:
    return [clip.path for clip in inputs.Inputs(clips, files_from)]


def below(clips: list[str], files_from: str | None = None) -> list[str]:
    return [clip.below for clip in inputs.Inputs(clips, files_from)]


# --- files and folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clips", "files_from", "expected"),
    [
        # Files come as they were named, there or not, whatever their suffix.
        (
            ["b.txt", "./a.wav", "/abs/x.flac", "b.txt"],
            None,
            [("b.txt", "b.txt"), ("./a.wav", "a.wav"), ("/abs/x.flac", "x.flac"), ("b.txt", "b.txt")],
        ),
        # A folder stands for the audio below it, sorted, without what is hidden.
        (
            ["in"],
            None,
            [("in/a.FLAC", "a.FLAC"), ("in/b.wav", "b.wav"), ("in/sub/deep/c.mp3", "sub/deep/c.mp3")],
        ),
        (["in/sub/"], None, [("in/sub/deep/c.mp3", "deep/c.mp3")]),
        # Among several it lends its name, so that answers do not meet.
        (
            ["in/sub/deep", "else/", "-"],
            None,
            [("in/sub/deep/c.mp3", "deep/c.mp3"), ("else/a.wav", "else/a.wav"), ("-", "-")],
        ),
        # A list comes after the clips, and its folders are not opened.
        (["y.wav"], "list", [("y.wav", "y.wav"), ("z.wav", "z.wav"), ("in", "in")]),
    ],
)
def test_inputs_finds_and_counts_files_and_folders(
    clips: list[str], files_from: str | None, expected: list[tuple[str, str]]
) -> None:
    touch(
        ".", "in/b.wav", "in/a.FLAC", "in/sub/deep/c.mp3", "in/.hidden.wav", "in/.git/x.wav", "in/notes.txt"
    )
    touch(".", "else/a.wav")
    Path("list").write_bytes(b"z.wav\r\n\r\nin")
    found = inputs.Inputs(clips, files_from)

    assert found.count() == len(expected)
    assert list(found) == expected


@pytest.mark.parametrize("named", [".", "..", "../here/..", "deep/.."])
def test_inputs_names_nothing_above_the_folder_it_is_found_in(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(".", "here/a.wav", "here/deep/b.wav")
    monkeypatch.chdir("here")

    received = below([named, "deep"])

    assert received[-1] == "deep/b.wav"
    # "..", as a part of a path, would leave --output; "." or nothing would let two folders meet.
    assert all({".", ".."}.isdisjoint(Path(part).parts) for part in received)
    own_name = Path(named).resolve().name
    assert [Path(part).parts[0] for part in received[:-1]] == [own_name] * (len(received) - 1)


def test_inputs_takes_a_folder_on_a_list_for_a_clip_with_a_name() -> None:
    Path("list").write_text("/\n..\n.\n")

    assert paths([], "list") == ["/", "..", "."]
    assert all(Path(part).name == part and part not in ("", ".", "..") for part in below([], "list"))


def test_inputs_gives_a_clip_before_it_searches_the_next_folder() -> None:
    touch(".", "first.wav")
    found = inputs.Inputs(["first.wav", "later"], None)

    touch(".", "later/a.wav")  # made only now

    assert [clip.path for clip in found] == ["first.wav", "later/a.wav"]


def test_inputs_tells_what_it_leaves_out_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    silent = "a/02-01-05-02-01-01-12.wav"
    touch(".", silent, "a/01-01-05-02-01-01-12.wav", "a/notes.txt", "a/sub/cover.jpg")

    assert paths(["a"]) == ["a/01-01-05-02-01-01-12.wav"]
    assert capsys.readouterr().err.splitlines() == [
        "a: left out 2 files: not audio, by the suffix",
        "a: left out: 1 video without sound (RAVDESS's 02-...)",
    ]
    assert paths([silent]) == [silent]  # it was named


# --- lists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.wav\nb.wav\n", ["a.wav", "b.wav"]),
        (b"a.wav\r\nb.wav\r", ["a.wav", "b.wav"]),
        (b"\n\na.wav\n\r\n\nb.wav\n\n", ["a.wav", "b.wav"]),
        (b" a .wav \n", [" a .wav "]),
        (b"a.wav\0b.wav", ["a.wav", "b.wav"]),
        (b"\0a.wav\0\0b.wav\0", ["a.wav", "b.wav"]),
        (b"two\nlines.wav\0return\r.wav\r\0", ["two\nlines.wav", "return\r.wav\r"]),
        (b"caf\xe9.wav\n\xff\xfe.wav\n", [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"\xff\xfe.wav")]),
        ("größe.wav\n".encode(), ["größe.wav"]),
        (b"-\n", ["./-"]),  # a file of that name, not stdin
        (b"\xef\xbb\xbfa.wav\n\xef\xbb\xbfb.wav\n", ["a.wav", "\ufeffb.wav"]),  # the mark of some editors
    ],
)
def test_list_is_cut_at_lines_or_at_nuls(
    content: bytes, expected: list[str], stdin: Callable[[bytes], None]
) -> None:
    Path("list").write_bytes(content)
    stdin(content)

    assert paths([], "list") == paths([], "-") == expected


# A list that begins with the mark of an encoding is another matter.
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {*b"\r\n\0"} & {*name} and not name.startswith(MARKS)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    listed=st.lists(names, min_size=1, max_size=8),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n\n"]), min_size=8, max_size=8),
    piece=st.integers(1, 9),
    final=st.booleans(),
)
def test_list_brings_any_names_back_whatever_the_size_of_pieces(
    listed: list[bytes], ends: list[bytes], piece: int, final: bool
) -> None:
    lines = b"".join(name + end for name, end in zip(listed, ends, strict=False))
    nuls = b"\0".join(listed)
    Path("lines").write_bytes(lines if final else lines.rstrip(b"\r\n"))
    Path("nuls").write_bytes(nuls + b"\0" * final)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "_CHUNK_BYTES", piece)
        expected = [b"./-" if name == b"-" else name for name in listed]
        assert [*map(os.fsencode, paths([], "lines"))] == expected
        assert [*map(os.fsencode, paths([], "nuls"))] == expected


def test_list_is_taken_as_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    os.write(writing, b"a.wav\nb")

    found = inputs.Inputs([], "-")
    assert next(iter(found)).path == "a.wav"  # the writer is still at it

    os.write(writing, b".wav\n")
    os.close(writing)
    assert [clip.path for clip in found] == ["b.wav"]


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "no such file"), ("folder", "is a directory")])
def test_list_that_cannot_be_read_is_named(name: str, reason: str) -> None:
    Path("folder").mkdir()

    with pytest.raises(AccessError, match=f"cannot read {name}: {reason}"):
        inputs.Inputs([], name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a.wav\n".encode("utf-16"), "it is UTF-16, expected the bytes of file names"),
        (b"x" * 2**20, "a line of more than 65536 bytes is no path"),
        (b"a.wav\n" + b"x" * 2**20, "a line of more than 65536 bytes is no path"),
    ],
)
def test_list_that_is_no_list_is_refused(
    content: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("list").write_bytes(content)
    for source in ("list", "-"):
        with Path("list").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            with pytest.raises(AccessError, match=f"cannot read {source}: {reason}"):
                paths([], source)


# --- nothing, or too much ------------------------------------------------------------------------------


def test_inputs_refuses_nothing() -> None:
    with pytest.raises(ConfigError, match=r"no CLIP was given\. Name files or folders"):
        inputs.Inputs([], None)


def test_inputs_says_where_it_found_nothing() -> None:
    Path("empty").mkdir()
    Path("other\nname").mkdir()
    Path("list").write_bytes(b"\r\n\n")

    with pytest.raises(NoInputError, match=r"no audio in empty, other\\nname, list$"):
        inputs.Inputs(["empty", "other\nname"], "list")


@pytest.mark.parametrize(
    ("clips", "files_from"), [(["-", "-"], None), (["-"], "-"), (["a.wav", "-", "b.wav", "-"], None)]
)
def test_stdin_is_one_thing_only(clips: list[str], files_from: str | None) -> None:
    with pytest.raises(ConfigError, match=r"stdin can be one thing only\. Give - once"):
        inputs.Inputs(clips, files_from)


def test_stdin_has_its_place_among_the_clips(stdin: Callable[[bytes], None]) -> None:
    touch(".", "-/a.wav")  # a folder of that name is not what - means
    stdin(b"b.wav\n")

    assert list(inputs.Inputs(["a.wav", "-"], None)) == [("a.wav", "a.wav"), ("-", "-")]
    assert paths(["./-"], "-") == ["./-/a.wav", "b.wav"]


def test_inputs_has_no_input_where_stdin_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`

    for clips, files_from in ((["a.wav", "-"], None), ([], "-")):
        with pytest.raises(NoInputError, match="stdin is closed"):
            inputs.Inputs(clips, files_from)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_count_takes_nothing_from_a_list_that_is_read_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a.wav\n")
    os.close(writing)
    substituted = f"/dev/fd/{reading}"  # what a shell makes of `<(find ...)`
    found = inputs.Inputs(["first.wav"], substituted)

    assert found.count() is None

    assert [clip.path for clip in found] == ["first.wav", "a.wav"]
    os.close(reading)
