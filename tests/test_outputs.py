"""A file of answers has its name when it is whole, a broken run loses none, and none is taken up wrongly."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speechemo_cli.cli import answers, outputs, terminal
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.cli.inputs import Input
from speechemo_cli.cli.outputs import ToFile, ToFolder
from speechemo_cli.errors import AccessError, ClipError, ConfigError
from speechemo_cli.inference.predictor import Answer
from speechemo_cli.inference.results import Style

LABELS = ("neutral", "happy", "angry")
STYLE = Style("m.keras", LABELS, key="this run")
OTHER = STYLE._replace(key="another")
# Needs quotes, holds the mark of a line's end, and is no UTF-8.
ODD_NAME = os.fsdecode(b'a,\n"\xe9"\r.wav')


def answer(path: str, sha256: str = "1" * 64, **more: object) -> Answer:
    given = Answer(path, "happy", 0.5, {"neutral": 0.25, "happy": 0.5, "angry": 0.25}, 1.5, sha256=sha256)
    return replace(given, **more)


A, B, C = answer("a.wav"), answer("b.wav", "2" * 64), answer(ODD_NAME, "3" * 64)


def clip(item: Answer | ClipError) -> Input:
    return Input(item.path, Path(item.path).name)


def put(sink: outputs.Sink, *items: Answer | ClipError) -> None:
    for item in items:
        sink.reserve(clip(item))
        sink.write(clip(item), [item])


_running: list[ToFile] = []


def to_file(name: str = "out.jsonl", style: Style = STYLE, resume: bool = False) -> ToFile:
    """As of a process of its own: the one before has ended, with which the system closes its files."""
    while _running:
        _running.pop().__exit__()
    format_ = name.rpartition(".")[2]
    _running.append(ToFile(name, format_, WRITERS[format_](style), resume=resume))
    return _running[-1]


def known(sink: outputs.Sink, *items: Answer) -> list[Answer]:
    """Those of some answers that a sink has from a previous run."""
    return [one for item in items for one in sink.previous(clip(item)).get(item.sha256, [])]


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def records(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def written(format_: str, items: Iterable[Answer | ClipError], style: Style = STYLE) -> str:
    writer = WRITERS[format_](style)
    return "".join([writer.begin(), *map(writer.write, items), writer.end()])


resumable = pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])


# --- a file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["jsonl", "json", "csv", "label", "table"])
def test_the_file_is_what_stdout_would_have_been(
    format_: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [A, ClipError("b.wav", "no such file"), answer("ünï\n.wav")]
    monkeypatch.setattr(terminal, "draws_blocks", lambda: True)
    for output in (None, f"out.{format_}"):
        sink = outputs.sink(output, format_, WRITERS[format_](STYLE))
        put(sink, *items)
        sink.close()

    assert Path(f"out.{format_}").read_bytes().decode() == capsys.readouterr().out


def test_an_answer_is_on_stdout_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    sink = outputs.sink(None, "jsonl", WRITERS["jsonl"](STYLE))

    put(sink, A)

    assert json.loads(capsys.readouterr().out)["path"] == "a.wav"


def test_a_file_has_its_name_only_when_it_is_whole() -> None:
    Path("out.jsonl").write_text("of a previous run\n")
    sink = to_file()
    put(sink, A)

    assert Path("out.jsonl").read_text() == "of a previous run\n"
    # What was answered is on the disk already, for whoever looks or is to resume.
    assert [record["path"] for record in records("out.jsonl.partial")] == ["a.wav"]

    put(sink, B)
    sink.close()

    assert [record["path"] for record in records("out.jsonl")] == ["a.wav", "b.wav"]
    assert names() == ["out.jsonl"]


def test_names_that_are_no_utf8_are_the_bytes_they_were_in_csv() -> None:
    sink = to_file("out.csv")
    put(sink, answer(os.fsdecode(b"caf\xe9.wav")))
    sink.close()

    assert b"\ncaf\xe9.wav,ok," in Path("out.csv").read_bytes()


@resumable
def test_answers_of_a_whole_file_are_taken_up(name: str) -> None:
    sink = to_file(name)
    put(sink, A, ClipError("x.wav", "no such file"), C)
    sink.close()

    again = to_file(name, resume=True)

    assert known(again, A, C) == [A, C]
    assert again.previous(Input("x.wav", "x.wav")) == {}  # what could not be read may be readable now
    assert again.previous(Input("never.wav", "never.wav")) == {}


@resumable
def test_another_content_model_or_option_makes_an_answer_unknown(name: str) -> None:
    for style, item in ((OTHER, A), (STYLE, B)):
        sink = to_file(name, style)
        put(sink, item)
        sink.close()

    assert known(to_file(name, OTHER, resume=True), A, B) == []
    again = to_file(name, resume=True)
    assert known(again, A, B) == [B]
    assert again.previous(clip(B)).get("4" * 64) is None


@resumable
def test_a_run_that_was_broken_off_any_number_of_times_loses_nothing(name: str) -> None:
    clips = [answer(f"{i}.wav", f"{i:064}") for i in range(6)]
    put(to_file(name), *clips[:3])  # and killed

    second = to_file(name, resume=True)
    assert known(second, *clips) == clips[:3]
    put(second, clips[0])  # killed before it had come to the others

    third = to_file(name, resume=True)
    assert known(third, *clips) == clips[:3]
    put(third, *clips[:4])

    fourth = to_file(name, resume=True)
    assert known(fourth, *clips) == clips[:4]

    fifth = to_file(name, resume=True)
    assert known(fifth, *clips) == clips[:4]
    put(fifth, *clips)
    fifth.close()

    assert names() == [name]
    assert known(to_file(name, resume=True), *clips) == clips


@resumable
def test_a_broken_run_over_a_whole_file_adds_to_it(name: str) -> None:
    whole = to_file(name)
    put(whole, A)
    whole.close()
    before = Path(name).read_bytes()
    put(to_file(name, resume=True), B)  # and killed

    assert Path(name).read_bytes() == before
    assert known(to_file(name, resume=True), A, B, C) == [A, B]


def test_without_resume_nothing_of_before_counts() -> None:
    put(to_file(), A)

    sink = to_file()
    assert known(sink, A) == []
    put(sink, B)
    sink.close()

    assert "a.wav" not in Path("out.jsonl").read_text()


@resumable
def test_each_channel_is_kept_and_the_last_answer_of_each_counts(name: str) -> None:
    left, right = replace(A, channel="left"), replace(A, channel="right")
    later = replace(left, label="angry")
    put(to_file(name), left, right, later)

    assert sorted(known(to_file(name, resume=True), A), key=str) == sorted([right, later], key=str)


@resumable
def test_a_record_that_was_torn_is_no_answer(name: str) -> None:
    text = written(name.rpartition(".")[2], [A, C, B]).encode("utf-8", "surrogateescape")
    begins = text.rindex(b"b.wav") - 60  # in the middle of the one before

    for end in range(begins, len(text), 3):
        Path(name).write_bytes(text[:end])

        received = known(to_file(name, resume=True), A, B, C)

        assert received in ([A], [A, C])
    Path(name).write_bytes(text)
    assert known(to_file(name, resume=True), A, B, C) == [A, B, C]


@resumable
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\0\0",
        b"nonsense\n3\n[]\nnull\n{}\n\n",
        b'{"status": "ok", "key": "this run"}\n',
        b'{"status": "ok", "key": "this run", "path": "a.wav", "label": "x", "confidence": 1, "warnings": [],'
        b' "probabilities": [1]}\n',
        b"path,status,key\na.wav,ok,this run\n",
        b"path,status\rkey\n",
        b'path,status,key\n"' + 200_000 * b"x" + b"\n",
    ],
)
def test_a_file_that_is_none_of_ours_holds_no_answers_and_is_replaced(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)

    sink = to_file(name, resume=True)
    assert known(sink, A) == []
    put(sink, A)
    sink.close()

    assert known(to_file(name, resume=True), A) == [A]


def test_what_is_ours_behind_a_line_that_no_csv_reader_takes_is_found() -> None:
    Path("out.csv").write_text("a\rb,c\n" + written("csv", [A]))

    assert known(to_file("out.csv", resume=True), A) == [A]


# --- what was written is what is read ------------------------------------------------------------------

file_names = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name).map(os.fsdecode)
shares = st.integers(0, 1_000_000).map(lambda n: n / 1_000_000)


@st.composite
def any_answers(draw: st.DrawFn) -> Answer:
    probabilities = {label: draw(shares) for label in LABELS}
    return Answer(
        draw(file_names),
        draw(st.sampled_from((*LABELS, "uncertain"))),
        max(probabilities.values()),
        probabilities,
        draw(st.integers(0, 10**7)) / 1000,
        # "; " stands between warnings in CSV; no warning holds it.
        tuple(draw(st.lists(st.sampled_from(["clipped, 3 %", 'a "hum"', "läuft\nüber"]), max_size=2))),
        draw(st.sampled_from([None, "left", "right", "7"])),
        draw(st.binary(min_size=32, max_size=32)).hex(),
    )


@given(
    items=st.lists(any_answers(), max_size=5, unique_by=lambda item: (item.path, item.sha256, item.channel))
)
@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_any_answers_come_back_as_they_were(format_: str, items: list[Answer]) -> None:
    text = written(format_, items)

    found = answers.load_previous(io.StringIO(text, newline="\n"), format_, STYLE)

    received = [item for of_path in found.values() for of_content in of_path.values() for item in of_content]
    assert sorted(received, key=repr) == sorted(items, key=repr)
    assert all(found[item.path][item.sha256] for item in items)


@given(items=st.lists(any_answers(), min_size=1, max_size=2), top=st.integers(1, 3))
@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_what_is_loaded_is_written_as_it_stood(format_: str, items: list[Answer], top: int) -> None:
    style = STYLE._replace(top=top)
    once = written(format_, items[:1], style)

    found = answers.load_previous(io.StringIO(once, newline="\n"), format_, style)

    ((received,),) = (group for of_path in found.values() for group in of_path.values())
    assert written(format_, [received], style) == once


@given(text=st.text(), cut=st.integers(0, 400))
@example(text='"', cut=100)
@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_no_text_is_an_answer_by_accident(format_: str, text: str, cut: int) -> None:
    lines = io.StringIO(text + written(format_, [A])[:cut], newline="\n")

    found = answers.load_previous(lines, format_, STYLE)

    assert found in ({}, {A.path: {A.sha256: [A]}})


# --- a folder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "ü", "\udce9"])
def test_the_longest_names_have_answers_of_their_own(letter: str) -> None:
    size = len(os.fsencode(letter))
    clips = [answer(f"in/{letter * ((255 - 5) // size)}{i}.wav", f"{i:064}") for i in range(2)]
    sink = to_folder()
    put(sink, *clips)

    assert len(names()) == 2
    assert all(len(os.fsencode(Path(name).name)) <= 255 for name in names())
    again = to_folder(resume=True)
    for one in clips:
        again.reserve(clip(one))
    assert known(again, *clips) == clips


def to_folder(format_: str = "jsonl", style: Style = STYLE, resume: bool = False) -> ToFolder:
    return ToFolder("out", format_, WRITERS[format_](style), resume=resume)


@pytest.mark.parametrize(
    ("format_", "ending"),
    [("jsonl", ".jsonl"), ("json", ".json"), ("csv", ".csv"), ("label", ".txt"), ("table", ".txt")],
)
def test_a_folder_mirrors_the_inputs(format_: str, ending: str) -> None:
    sink = to_folder(format_)
    for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"):
        sink.reserve(Input(f"in/{below}", below))
    for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"):
        sink.write(Input(f"in/{below}", below), [answer(f"in/{below}")])
    sink.close()

    assert names() == sorted(f"out/{below}{ending}" for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"))
    expected = written(format_, [answer("in/sub/a.flac")])
    assert Path(f"out/sub/a.flac{ending}").read_text(encoding="utf-8") == expected


def test_all_channels_of_a_clip_are_in_its_file() -> None:
    sink = to_folder()
    sink.reserve(clip(A))
    sink.write(clip(A), [replace(A, channel="left"), ClipError("a.wav", "silent", "right")])

    assert [record["channel"] for record in records("out/a.wav.jsonl")] == ["left", "right"]


def test_a_clip_that_is_named_twice_is_answered_twice_in_one_place() -> None:
    sink = to_folder()
    for _ in range(2):
        sink.reserve(clip(A))  # a whole batch is expected before the first is answered
    for _ in range(2):
        sink.write(clip(A), [A])

    assert names() == ["out/a.wav.jsonl"]


def test_a_clip_that_is_found_by_two_ways_is_answered_in_both_places() -> None:
    ways = [Input("in/a.wav", "in/a.wav"), Input("in/a.wav", "a.wav")]
    sink = to_folder()
    for way in ways:
        sink.reserve(way)
    for way in ways:
        sink.write(way, [answer("in/a.wav")])

    assert names() == ["out/a.wav.jsonl", "out/in/a.wav.jsonl"]


def test_two_clips_for_one_place_are_refused_before_either_is_lost() -> None:
    sink = to_folder()
    put(sink, answer("x/a.wav"))

    with pytest.raises(
        ConfigError, match=r"x/a\.wav and y/a\.wav would both be answered in out/a\.wav\.jsonl\. Name the fo"
    ):
        sink.reserve(Input("y/a.wav", "a.wav"))

    assert json.loads(Path("out/a.wav.jsonl").read_text())["path"] == "x/a.wav"


@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_each_clip_of_a_folder_is_resumed_by_itself(format_: str) -> None:
    put(to_folder(format_), A, C)
    put(to_folder(format_, OTHER), B)

    sink = to_folder(format_, resume=True)
    for item in (A, B, C):
        sink.reserve(clip(item))

    assert known(sink, A, B, C) == [A, C]
    fresh = to_folder(format_)
    fresh.reserve(clip(A))
    assert known(fresh, A) == []


# --- where it goes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("out.jsonl", False),
        ("out", True),
        ("out.d/", True),
        ("new/out.csv", False),
        ("old.v1", True),
        ("old.v1/x.txt", False),
    ],
)
def test_a_folder_is_one_that_is_there_or_has_no_suffix_or_ends_in_a_slash(output: str, folder: bool) -> None:
    Path("old.v1").mkdir()

    assert outputs.is_folder(output) is folder
    assert isinstance(outputs.sink(output, "jsonl", WRITERS["jsonl"](STYLE)), ToFolder if folder else ToFile)


def test_no_output_is_stdout() -> None:
    assert isinstance(outputs.sink(None, "jsonl", WRITERS["jsonl"](STYLE)), outputs.Sink)


@pytest.mark.parametrize("output", ["taken/out.jsonl", "taken/out", "taken/"])
def test_a_place_that_cannot_be_written_is_said_before_the_first_clip(output: str) -> None:
    Path("taken").write_text("a file")

    with pytest.raises(AccessError, match=r"cannot write to taken.*: (file exists|not a directory)"):
        outputs.sink(output, "jsonl", WRITERS["jsonl"](STYLE))

    assert Path("taken").read_text() == "a file"


def test_a_pipe_in_the_place_of_the_file_stays_one() -> None:
    os.mkfifo("out.jsonl")

    with pytest.raises(AccessError, match=r"cannot write out\.jsonl: not a regular file"):
        to_file()

    assert Path("out.jsonl").is_fifo()


def test_a_link_in_the_place_of_the_file_stays_and_what_it_points_to_is_replaced() -> None:
    Path("far").mkdir()
    Path("far/answers.jsonl").write_text("of a previous run\n")
    Path("out.jsonl").symlink_to("far/answers.jsonl")

    to_file().close()

    assert Path("out.jsonl").is_symlink()
    assert Path("far/answers.jsonl").read_text() == ""


def test_two_do_not_write_to_one_file() -> None:
    with to_file() as first:
        put(first, A)
        with pytest.raises(AccessError, match=r"^out\.jsonl is being written by another speechemo\. Wait"):
            ToFile("out.jsonl", "jsonl", WRITERS["jsonl"](STYLE), resume=True)
        put(first, B)
        first.close()

    assert [record["path"] for record in records("out.jsonl")] == ["a.wav", "b.wav"]
    assert known(to_file(resume=True), A, B) == [A, B]


def test_many_that_begin_at_once_make_whole_files_of_their_own() -> None:
    """Each tries until it is alone; whoever got in between another's end and its name would be lost."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_outputs import *\n"
        "for i in range(30):\n"
        "    while True:\n"
        "        try:\n"
        "            sink = ToFile('out.jsonl', 'jsonl', WRITERS['jsonl'](STYLE)); break\n"
        "        except AccessError as error: assert 'another' in str(error), error\n"
        "    with sink:\n"
        "        put(sink, *[answer(sys.argv[2])] * 5)\n"
        "        sink.close()\n"
        "    got = [one['path'] for one in records('out.jsonl')]\n"
        "    assert len(got) == 5 and len(set(got)) == 1, got\n"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(Path(__file__).parent), name], stderr=subprocess.PIPE
        )
        for name in ("one", "two", "three")
    ]

    for process in begun:
        _, err = process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
    assert names() == ["out.jsonl"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_but_a_file_is_opened_as_the_partial_one(kind: str) -> None:
    Path("precious").write_text("precious")
    if kind == "link":
        Path("out.jsonl.partial").symlink_to("precious")
    else:
        os.mkfifo("out.jsonl.partial")

    with pytest.raises(
        AccessError, match=r"cannot write .*out\.jsonl\.partial: (too many levels|no such dev)"
    ):
        to_file()

    assert Path("precious").read_text() == "precious"
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": ["a.wav"]},
        {"sha256": [1]},
        {"sha256": "../x"},
        {"confidence": 10**400},
        {"confidence": "nan"},
        {"confidence": 1.5},
        {"label": ["happy"]},
        {"label": "\x1b[31mhappy"},
        {"probabilities": {"\x1b[31m": 1.0}},
        {"probabilities": {"happy": -1.0}},
        {"duration_s": -1},
        {"duration_s": "inf"},
        {"warnings": [3]},
        {"channel": 7},
    ],
    ids=str,
)
def test_what_cannot_be_an_answer_is_not_taken_up(wrong: dict[str, object]) -> None:
    record = {**STYLE.record(A), **wrong}
    lines = [json.dumps(record), '{"a": ' + 200_000 * "[", written("jsonl", [B]).strip()]
    Path("out.jsonl").write_text("\n".join(lines) + "\n")

    assert known(to_file(resume=True), A, B) == [B]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [("0.5", "nan"), ("0.25", "-1"), ("1.5", "1e999"), ("happy", "\x1b[31m"), ("1" * 64, "x")],
)
def test_what_cannot_be_an_answer_in_csv_is_not_taken_up_either(value: str, wrong: str) -> None:
    header, a, b = written("csv", [A, B]).splitlines()
    assert f",{value}," in a
    Path("out.csv").write_text("\n".join([header, a.replace(f",{value},", f",{wrong},"), b, ""]))

    assert known(to_file("out.csv", resume=True), A, B) == [B]


def test_a_partial_file_that_cannot_be_opened_is_said() -> None:
    Path("out.jsonl.partial").mkdir()

    with pytest.raises(AccessError, match=r"cannot write .*out\.jsonl\.partial: is a directory"):
        to_file()


def test_no_more_room_is_said_and_the_old_file_stays() -> None:
    Path("out.jsonl").write_text("of a previous run\n")
    sink = to_file()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))

    try:
        with pytest.raises(
            AccessError, match=r"cannot write out\.jsonl: file too large\. Raise the file size"
        ):
            put(sink, A)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert Path("out.jsonl").read_text() == "of a previous run\n"


def test_a_full_disk_at_the_end_leaves_what_was_answered_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = to_file()
    put(sink, A)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(AccessError, match=r"cannot write out\.jsonl: no space left on device"):
            sink.close()

    assert names() == ["out.jsonl.partial"]
    assert known(to_file(resume=True), A) == [A]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_cannot_be_resumed() -> None:
    put(to_file(), A)
    Path("out.jsonl.partial").chmod(0)

    with pytest.raises(AccessError, match=r"cannot read out\.jsonl\.partial: permission denied"):
        to_file(resume=True)
