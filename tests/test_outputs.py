"""A file of answers has its name when it is whole, a broken run loses none, and none is taken up wrongly."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import touch
from hypothesis import example, given
from hypothesis import strategies as st

from speechemo_cli import files
from speechemo_cli.choices import AnswerFormat
from speechemo_cli.cli import answers, app, outputs, terminal
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.cli.inputs import Input
from speechemo_cli.cli.outputs import ToFile, ToFolder, protect
from speechemo_cli.errors import AccessError, ClipError, ConfigError
from speechemo_cli.inference import Style
from speechemo_cli.inference.predictor import Answer
from speechemo_cli.models import model_file

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
    return [one for item in items for one in sink.reserve(clip(item)).get(item.sha256, {}).values()]


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
def test_sink_writes_into_a_file_what_stdout_would_get(
    format_: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [A, ClipError("b.wav", "no such file"), answer("ünï\n.wav")]
    monkeypatch.setattr(terminal, "draws_blocks", lambda: True)
    received = []
    for output in (None, f"out.{format_}"):
        sink = outputs.sink(output, format_, WRITERS[format_](STYLE))
        put(sink, items[0])
        received.append(capsys.readouterr().out)  # at once
        put(sink, *items[1:])
        sink.close()
        received.append(capsys.readouterr().out)

    assert Path(f"out.{format_}").read_bytes().decode() == "".join(received)
    assert all(received[:2])
    assert received[2:] == ["", ""]


def test_file_has_its_name_only_when_it_is_whole() -> None:
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


@resumable
def test_resume_loses_nothing_of_runs_that_were_broken_off(name: str) -> None:
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
def test_resume_adds_a_broken_run_to_a_whole_file(name: str) -> None:
    whole = to_file(name)
    put(whole, A, ClipError("x.wav", "no such file"), C)
    whole.close()
    before = Path(name).read_bytes()
    put(to_file(name, resume=True), B)  # and killed

    again = to_file(name, resume=True)
    assert Path(name).read_bytes() == before
    assert known(again, A, B, C) == [A, B, C]
    # What could not be read may be readable now.
    assert [again.reserve(Input(path, path)) for path in ("x.wav", "never.wav")] == [{}, {}]


def test_file_without_resume_holds_nothing_of_before() -> None:
    put(to_file(), A)

    sink = to_file()
    assert known(sink, A) == []
    put(sink, B)
    sink.close()

    assert "a.wav" not in Path("out.jsonl").read_text()


@resumable
def test_resume_keeps_the_last_answer_of_each_channel(name: str) -> None:
    left, right = replace(A, channel="left"), replace(A, channel="right")
    later = replace(left, label="angry")
    put(to_file(name), left, right, later)

    assert sorted(known(to_file(name, resume=True), A), key=str) == sorted([right, later], key=str)


@resumable
def test_resume_keeps_no_record_that_was_torn(name: str) -> None:
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
def test_resume_replaces_a_file_that_is_none_of_ours(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)

    sink = to_file(name, resume=True)
    assert known(sink, A) == []
    put(sink, A)
    sink.close()

    assert known(to_file(name, resume=True), A) == [A]


def test_resume_finds_what_is_behind_a_line_that_no_csv_reader_takes() -> None:
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
    items=st.lists(any_answers(), max_size=4, unique_by=lambda item: item.path),
    top=st.sampled_from([None, 1, 3]),
)
@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_load_previous_brings_any_answers_back(format_: str, items: list[Answer], top: int | None) -> None:
    style = STYLE._replace(top=top)
    text = written(format_, items, style)

    found = answers.load_previous(io.StringIO(text, newline="\n"), format_, style)

    assert list(found) == [item.path for item in items]
    received = [found[item.path][item.sha256][item.channel] for item in items]
    assert received == items or top == 1
    assert written(format_, received, style) == text


@given(text=st.text(), cut=st.integers(0, 400))
@example(text='"', cut=100)
@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_load_previous_takes_no_text_for_an_answer_by_accident(format_: str, text: str, cut: int) -> None:
    lines = io.StringIO(text + written(format_, [A])[:cut], newline="\n")

    found = answers.load_previous(lines, format_, STYLE)

    assert found in ({}, {A.path: {A.sha256: {None: A}}})


# --- a folder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "\udce9"])
def test_folder_gives_the_longest_names_files_of_their_own(letter: str) -> None:
    size = len(os.fsencode(letter))
    clips = [answer(f"in/{letter * ((255 - 5) // size)}{i}.wav", f"{i:064}") for i in range(2)]
    sink = to_folder()
    put(sink, *clips)

    assert len(names()) == 2
    assert all(len(os.fsencode(Path(name).name)) <= 255 for name in names())
    assert known(to_folder(resume=True), *clips) == clips


def to_folder(format_: str = "jsonl", style: Style = STYLE, resume: bool = False) -> ToFolder:
    return ToFolder("out", format_, WRITERS[format_](style), resume=resume)


@pytest.mark.parametrize(
    ("format_", "ending"), [("jsonl", ".jsonl"), ("json", ".json"), ("label", ".txt"), ("table", ".txt")]
)
def test_folder_mirrors_the_inputs(format_: str, ending: str) -> None:
    sink = to_folder(format_)
    for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"):
        sink.reserve(Input(f"in/{below}", below))
    for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"):
        sink.write(Input(f"in/{below}", below), [answer(f"in/{below}")])
    sink.close()

    assert names() == sorted(f"out/{below}{ending}" for below in ("a.wav", "sub/deep/a.wav", "sub/a.flac"))
    expected = written(format_, [answer("in/sub/a.flac")])
    assert Path(f"out/sub/a.flac{ending}").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        (["a.wav", "a.wav"], ["out/a.wav.jsonl"]),  # a clip that is named twice
        (["in/a.wav", "a.wav"], ["out/a.wav.jsonl", "out/in/a.wav.jsonl"]),  # or found by two ways
    ],
)
def test_folder_answers_a_clip_once_in_each_place(below: list[str], expected: list[str]) -> None:
    sink = to_folder()
    for name in below:
        sink.reserve(Input("in/a.wav", name))  # a whole batch is expected before the first is answered
    for name in below:
        sink.write(
            Input("in/a.wav", name), [replace(A, channel="left"), ClipError("a.wav", "silent", "right")]
        )

    assert names() == expected
    assert [record["channel"] for record in records(expected[0])] == ["left", "right"]


@pytest.mark.parametrize("format_", answers.RESUMABLE)
def test_folder_resumes_each_clip_by_itself(format_: str) -> None:
    put(to_folder(format_), A, C)
    put(to_folder(format_, OTHER), B)

    assert known(to_folder(format_, resume=True), A, B, C) == [A, C]
    assert known(to_folder(format_), A) == []


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
def test_is_folder_takes_what_is_there_or_has_no_suffix_or_ends_in_a_slash(output: str, folder: bool) -> None:
    Path("old.v1").mkdir()

    assert outputs.is_folder(output) is folder
    assert isinstance(outputs.sink(output, "jsonl", WRITERS["jsonl"](STYLE)), ToFolder if folder else ToFile)


@pytest.mark.parametrize(
    ("asked", "output", "expected"),
    [
        (AnswerFormat.csv, "-", (None, "csv")),
        (None, "out.csv", ("out.csv", "csv")),
        (None, "new/out.jsonl", ("new/out.jsonl", "jsonl")),
        (None, "out", ("out", "jsonl")),
        (None, "out.csv/", ("out.csv/", "jsonl")),
        (AnswerFormat.label, "out.csv", ("out.csv", "label")),
        (AnswerFormat.csv, "/dev/stdout", (None, "csv")),
    ],
)
def test_choose_takes_the_format_that_is_asked_for_or_that_the_name_says(
    asked: AnswerFormat | None, output: str | None, expected: tuple[str | None, str]
) -> None:
    assert outputs.choose(asked, output, AnswerFormat) == expected


@pytest.mark.parametrize("command", ["predict", "timeline"])
@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("taken/out.jsonl", "taken: file exists"),
        ("taken/out", "taken/out: not a directory"),
        ("taken/", "taken: file exists"),
    ],
)
def test_command_refuses_a_place_that_cannot_be_written_before_it_reads_a_clip(
    output: str, reason: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("a file")

    assert app.run([command, "missing.wav", "--quiet", "-o", output]) == 5
    # A clip that it had looked for would be a warning.
    assert capsys.readouterr() == ("", f"error: cannot write to {reason}\n")
    assert Path("taken").read_text() == "a file"


def test_file_leaves_a_pipe_in_its_place_alone() -> None:
    os.mkfifo("out.jsonl")

    with pytest.raises(AccessError, match=r"cannot write out\.jsonl: not a regular file"):
        to_file()

    assert Path("out.jsonl").is_fifo()


def test_file_follows_a_link_in_its_place() -> None:
    Path("far").mkdir()
    Path("far/answers.jsonl").write_text("of a previous run\n")
    Path("out.jsonl").symlink_to("far/answers.jsonl")

    to_file().close()

    assert Path("out.jsonl").is_symlink()
    assert Path("far/answers.jsonl").read_text() == ""


def test_file_is_written_by_one_at_a_time() -> None:
    with to_file() as first:
        put(first, A)
        with pytest.raises(AccessError, match=r"^out\.jsonl is being written by another speechemo\. Wait"):
            ToFile("out.jsonl", "jsonl", WRITERS["jsonl"](STYLE), resume=True)
        put(first, B)
        first.close()

    assert [record["path"] for record in records("out.jsonl")] == ["a.wav", "b.wav"]
    with ToFile("out.jsonl", "jsonl", WRITERS["jsonl"](STYLE), resume=True) as sink:
        assert known(sink, A, B) == [A, B]
    assert names() == ["out.jsonl"]  # nothing is left of a run that wrote nothing


def test_file_is_opened_anew_where_another_has_just_given_it_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    open_locked = files.open_locked

    def named_at_once(path: Path) -> int:
        opened.append(open_locked(path))
        if len(opened) == 1:
            path.rename("out.jsonl")
        return opened[-1]

    monkeypatch.setattr(files, "open_locked", named_at_once)
    sink = to_file()
    put(sink, A)

    assert len(opened) == 2
    assert Path("out.jsonl").read_text() == ""  # the other's, which this one has not written to
    sink.close()
    assert [record["path"] for record in records("out.jsonl")] == ["a.wav"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_file_opens_nothing_but_a_file_as_the_partial_one(kind: str) -> None:
    Path("precious").write_text("precious")
    if kind == "link":
        Path("out.jsonl.partial").symlink_to("precious")
    elif kind == "folder":
        Path("out.jsonl.partial").mkdir()
    else:
        os.mkfifo("out.jsonl.partial")

    with pytest.raises(
        AccessError, match=r"cannot write .*out\.jsonl\.partial: (too many levels|no such dev|is a dir)"
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
def test_resume_keeps_nothing_that_cannot_be_an_answer(wrong: dict[str, object]) -> None:
    record = {**STYLE.record(A), **wrong}
    lines = [json.dumps(record), '{"a": ' + 200_000 * "[", written("jsonl", [B]).strip()]
    Path("out.jsonl").write_text("\n".join(lines) + "\n")

    assert known(to_file(resume=True), A, B) == [B]


def test_file_that_gets_too_large_is_an_error_and_the_old_one_stays() -> None:
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


def test_file_on_a_full_disk_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_resume_says_what_may_not_be_read() -> None:
    put(to_file(), A)
    Path("out.jsonl.partial").chmod(0)

    with pytest.raises(AccessError, match=r"cannot read out\.jsonl\.partial: permission denied"):
        to_file(resume=True)


# --- nothing that is read is written over ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("list.csv", "./list.csv", "link.csv", "hard.csv", "sub/../list.csv"),
        *("speechemo.toml", "pyproject.toml", "own.toml"),  # which every command reads
    ],
)
def test_protect_knows_a_file_by_any_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHEMO_CONFIG", "own.toml")
    touch(".", "list.csv", "speechemo.toml", "pyproject.toml", "own.toml", "sub/other.csv")
    Path("link.csv").symlink_to("list.csv")
    os.link("list.csv", "hard.csv")
    outputs = {"--plot": [Path("new.png")], "--report": [None, Path(name)]}

    with pytest.raises(ConfigError, match=r"^--report .* would write over \w+\.\w+, .*Give another --report"):
        protect(outputs, ["not-there", None, "list.csv"])


def test_protect_lets_pass_what_is_new_another_file_or_a_folder(tmp_path: Path) -> None:
    touch(".", "old.png", "list.csv")

    protect({"--plot": [Path("old.png")], "--output": [tmp_path, Path("new.csv")]}, ["list.csv", tmp_path])


def test_protect_refuses_two_outputs_in_one_file() -> None:
    with pytest.raises(ConfigError, match=r"--plot and --report would write over each other: sub/\.\./x"):
        protect({"--plot": [Path("x")], "--report": [Path("sub/../x")]}, [])


@pytest.fixture
def data(write_clip: Callable[..., Path]) -> Path:
    """Two clips with a manifest; `x.*` and `y.png` are files of it under other names, `list` names one."""
    for name in ("a", "b"):
        write_clip(f"data/{name}.wav", seconds=0.4)
    Path("data/manifest.csv").write_text("path,label,speaker\na.wav,sad,ann\nb.wav,happy,bob\n")
    Path("data/list.csv").write_text("data/a.wav\n")
    shutil.copy(model_file.PACKAGED, "data/m.keras")
    shutil.copy("data/a.wav", "data/old.jsonl.partial")
    for link in ("x.png", "x.keras", "x.jsonl"):
        Path(link).symlink_to("data/a.wav")
    for link in ("x.html", "y.png"):
        Path(link).symlink_to("data/b.wav")
    return Path("data")


@pytest.mark.parametrize(
    "command",
    [
        "evaluate data --version v1 --predictions data/manifest.csv",
        "evaluate data --version v1 --plot x.png",
        "evaluate data --version v1 --report x.html",
        "evaluate data --model packaged --plot x.png",
        "train data --version v1 --output x.keras",
        "train data --version v1 --output y.keras",  # beside which the learning curve goes
        "timeline data/a.wav --plot x.png",
        "timeline --files-from data/list.csv --plot x.png",
        "extract data --manifest-template data/manifest.csv",
        "extract data/manifest.csv --export data/manifest.csv",
        "predict data/a.wav -o data/a.wav -f jsonl",
        "predict data/a.wav -o x.jsonl",
        "predict --files-from data/list.csv -o data/list.csv",
        "predict data/b.wav --model data/m.keras -o data/m.keras -f jsonl",
        "predict data/old.jsonl.partial -o data/old.jsonl",
        "predict --files-from data/list.csv -o x.jsonl",  # known only when its turn comes
    ],
)
def test_command_writes_over_nothing_that_it_reads(
    command: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in data.iterdir()}

    code = app.run(command.split())

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1
    assert "would write over" in err or "exists already" in err
    assert {path: path.read_bytes() for path in data.iterdir()} == before
    assert not Path("features").exists()
