"""One line in, one line out, at once, whatever the line is."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND

from speechemo_cli.audio import reader
from speechemo_cli.cli import app, stream
from speechemo_cli.inference import Style
from speechemo_cli.inference.predictor import Predictor

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.open()


@pytest.fixture
def ask(
    predictor: Predictor,
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ask:
    """Put lines on stdin and return what was answered, line by line. There is a clip.wav."""
    write_clip("clip.wav", seconds=0.5)

    def call(*lines: object, end: bytes = b"\n") -> list[dict[str, Any]]:
        content = end.join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        stream.answer_lines(predictor, Style("v1.keras", predictor.labels))
        out = capsys.readouterr().out
        assert out == "" or out.endswith("\n")
        return [json.loads(line) for line in out.splitlines()]

    return call


def test_stream_answers_a_path_an_object_and_audio_as_predict_does(ask: Ask, predictor: Predictor) -> None:
    audio = base64.b64encode(Path("clip.wav").read_bytes()).decode()

    by_line, by_path, by_audio, by_both = ask(
        b"clip.wav", {"path": "clip.wav"}, {"audio": audio}, {"audio": audio, "path": "call 7"}
    )

    expected = Style("v1.keras", predictor.labels).record(predictor.predict("clip.wav"))
    assert expected["status"] == "ok"
    assert by_line == by_path == expected
    assert by_audio == {**expected, "path": ""}
    assert by_both == {**expected, "path": "call 7"}


@pytest.mark.parametrize("asked", ["call-7", None, -1.5, {"room": [1, 2]}])
def test_stream_gives_the_id_back_first(asked: object, ask: Ask) -> None:
    answers = ask(
        {"path": "clip.wav", "id": asked},
        {"id": asked, "path": "missing.wav"},
        {"audio": "?", "id": asked},
        {"id": asked},
    )

    assert [answer["id"] for answer in answers] == [asked] * 4
    assert [next(iter(answer)) for answer in answers] == ["id"] * 4
    assert [answer["status"] for answer in answers] == ["ok", "error", "error", "error"]
    assert "id" not in ask(b"clip.wav")[0]


@pytest.mark.parametrize(
    ("line", "path", "error"),
    [
        (b"missing.wav", "missing.wav", "no such file"),
        ({"path": "missing.wav"}, "missing.wav", "no such file"),
        (b".", ".", "a folder, not a clip"),
        (b"[1, 2]", "[1, 2]", "no such file"),
        pytest.param(b'{"a":' * 100_000, "", "not JSON: ", id="too deep"),
        (b'{"path": "x", "id": NaN}', "", "not JSON: NaN is not a finite number"),
        (b'{"path": "x", "id": -Infinity}', "", "not JSON: -Infinity is not a finite number"),
        (b'{"path": "x", "id": 1e999}', "", "not JSON: 1e999 is not a finite number"),
        pytest.param(
            f'{{"id": 1{"0" * 400}.0}}'.encode(),
            "",
            f"not JSON: 1{'0' * 19} is not a finite number",
            id="1e400",
        ),
        (b'{"path": "clip.wav"', "", "not JSON: Expecting ',' delimiter: line 1 column 20 (char 19)"),
        (b"{}", "", 'expected a path, or an object with "path" or "audio"'),
        ({"path": 3}, "", 'expected a path, or an object with "path" or "audio"'),
        ({"audio": "no base64!"}, "", "audio is not base64"),
        ({"audio": "é", "path": "x"}, "x", "audio is not base64"),
        ({"audio": ""}, "", "empty file"),
        ({"audio": base64.b64encode(b"text").decode()}, "", "not audio that can be read"),
        ({"path": "a\0b"}, "a\0b", "not a possible file name"),
        ({"path": "\ud800"}, "\ud800", "not a possible file name"),
    ],
)
def test_stream_says_what_cannot_be_answered_and_reads_on(
    line: object, path: str, error: str, ask: Ask
) -> None:
    refused, next_one = ask(line, b"clip.wav")

    assert refused.pop("error").startswith(error)
    assert refused == {"schema": 1, "path": path, "status": "error"}
    assert next_one["status"] == "ok"


def test_stream_refuses_a_line_that_is_too_long_and_passes_over_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_LONGEST_LINE", 100)

    answers = ask(b"x" * 99, b"x" * 100, b"x" * 101, b"x" * 200_000, b"clip.wav", b"x" * 102)

    assert [answer["status"] for answer in answers] == ["error"] * 4 + ["ok", "error"]
    assert [answer["path"] for answer in answers] == ["x" * 99, "", "", "", "clip.wav", ""]
    assert answers[2]["error"] == "a line of more than 100 bytes"


def test_stream_reads_on_after_a_mistake_of_ours(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    read = reader.read_channels

    def broken(path: str, *more: Any) -> Any:
        if path == "bad.wav":
            raise OverflowError("of ours")
        return read(path, *more)

    monkeypatch.setattr(reader, "read_channels", broken)

    refused, next_one = ask(b"bad.wav", b"clip.wav")

    assert refused["error"] == "internal error: OverflowError: of ours"
    assert next_one["status"] == "ok"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n \t\n"])
def test_stream_answers_each_line_that_is_not_blank(end: bytes, ask: Ask) -> None:
    assert [answer["path"] for answer in ask(b"a.wav", b" b.wav ", b"", end=end)] == ["a.wav", " b.wav "]
    assert [answer["path"] for answer in ask(b"a.wav", b"no end.wav", end=end)] == ["a.wav", "no end.wav"]
    assert ask(b"", b"", end=end) == []


def test_stream_finds_names_that_are_no_utf8(ask: Ask) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    Path("clip.wav").rename(name)

    by_line, by_json = ask(b"caf\xe9.wav", {"path": name})

    assert by_line == by_json
    assert by_line["status"] == "ok"
    assert os.fsencode(by_line["path"]) == b"caf\xe9.wav"


def test_stream_has_no_input_where_stdin_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`

    assert app.run(["stream", "--quiet"]) == 6
    assert capsys.readouterr().err == "error: stdin is closed\n"


def test_stream_answers_before_it_asks_for_the_next_line(write_clip: Callable[..., Path]) -> None:
    write_clip("clip.wav", seconds=0.5)
    command = [*COMMAND, "stream", "--top", "1", "--labels", "sad, calm"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for i in range(3):
            process.stdin.write(json.dumps({"path": "clip.wav", "id": i}) + "\n")
            process.stdin.flush()
            # Would wait for ever for an answer that is held back until stdin ends.
            answer = json.loads(process.stdout.readline())
            assert (answer["id"], answer["status"]) == (i, "ok")
            assert (answer["restricted_to"], len(answer["probabilities"])) == (["calm", "sad"], 1)
        process.stdin.write("missing.wav\n")
        rest, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert json.loads(rest)["error"] == "no such file"
    assert process.returncode == 0  # a line that could not be answered is no failure of the stream
    assert len(err.splitlines()) == 1
    assert err.startswith("model: ")
