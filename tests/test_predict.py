"""`speechemo predict` as a shell sees it: where answers go, which are kept, what the exit code says."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import noisy

from speechemo_cli.audio import reader
from speechemo_cli.cli import app, options, outputs
from speechemo_cli.cli.predict import unchanged
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.features import mfcc
from speechemo_cli.inference.predictor import Answer
from speechemo_cli.models import model_file

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _model(model_with_litert: Callable[[str], Path], _clean_environment: None) -> None:
    """A v1 with its LiteRT file in models/, which answers; a test may spoil it."""
    Path("models").mkdir()
    for file in (model_with_litert("v1"), model_file.litert_path(model_with_litert("v1"))):
        shutil.copy(file, Path("models") / file.name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `speechemo predict` in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        given = () if "--model" in arguments or "-m" in arguments else ("--model", "v1")
        code = app.run(["predict", *map(str, [*given, *arguments])])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def clips(write_clip: Callable[..., Path], rng: np.random.Generator) -> list[str]:
    """Three clips in a tree, of which the second is none."""
    for i, name in enumerate(("in/a.wav", "in/sub/c.flac")):
        write_clip(name, y=noisy(rng, 0.5 + i, 16000, 100 + 120 * i))
    Path("in/b.wav").write_text("nonsense")
    return ["in/a.wav", "in/b.wav", "in/sub/c.flac"]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the waveforms that features are computed of."""
    lengths: list[int] = []
    compute = mfcc.compute

    def counted(y: np.ndarray, *more: Any) -> np.ndarray:
        lengths.append(len(y))
        return compute(y, *more)

    monkeypatch.setattr(mfcc, "compute", counted)
    return lengths


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def in_file(name: str) -> list[dict[str, Any]]:
    return records(Path(name).read_text())


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# --- where answers go ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv", "new/folder/out.jsonl"])
def test_the_suffix_of_the_output_is_its_format(name: str, clips: list[str], run: Run) -> None:
    code, out, _ = run(*clips, "-o", name)
    _, expected, _ = run(*clips, "--format", name.rpartition(".")[2])

    assert (code, out) == (3, "")
    assert Path(name).read_text() == expected


def test_the_format_that_is_asked_for_wins_over_the_suffix(clips: list[str], run: Run) -> None:
    run(clips[0], "-o", "words.txt", "--format", "label")
    run(clips[0], "-o", "out.csv", "--format", "jsonl")

    assert Path("words.txt").read_text().strip() in EMOTIONS
    assert in_file("out.csv")[0]["path"] == clips[0]


@pytest.mark.parametrize("output", ["answers", "answers.v1/"])
def test_a_folder_gets_a_file_a_clip_in_the_tree_of_the_inputs(
    output: str, clips: list[str], run: Run
) -> None:
    code, out, err = run("in", "-o", output)

    assert (code, out) == (3, "")
    assert "warning: in/b.wav: not audio that can be read" in err
    assert files(output) == ["a.wav.jsonl", "b.wav.jsonl", "sub/c.flac.jsonl"]
    _, expected, _ = run("in")
    assert [in_file(f"{output}/{name}")[0] for name in files(output)] == records(expected)


def test_a_clip_that_is_named_twice_is_no_accident(clips: list[str], run: Run) -> None:
    code, _, _ = run(clips[0], clips[0], "-o", "answers")

    assert code == 0
    assert files("answers") == ["a.wav.jsonl"]


def test_nothing_is_written_above_the_output(
    clips: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in/here").mkdir()
    monkeypatch.chdir("in/here")

    run("..", "../sub", "--model", tmp_path / "models/v1.keras", "-o", "answers")

    assert files("answers") == ["in/a.wav.jsonl", "in/b.wav.jsonl", "in/sub/c.flac.jsonl", "sub/c.flac.jsonl"]
    written = [f"here/answers/{name}" for name in files("answers")]
    assert files("..") == ["a.wav", "b.wav", *written, "sub/c.flac"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.txt"], "--output is out.txt, expected a name that ends in "),
        (["--resume"], "--resume needs answers it can read again. Give --output and --format jsonl or csv"),
        (["-o", "out.json", "--resume"], "--resume needs answers it can read again"),
        (["-o", "answers", "--format", "label", "--resume"], "--resume needs answers it can read again"),
        (["--top", "0"], "Invalid value for '--top'"),
        (["--labels", "happy"], "labels is 'happy', expected at least two to choose from"),
        (["--labels", "happy,bored"], "the model does not know 'bored'. Its labels are neutral, calm, happy"),
        (["--channel", "middle"], "Invalid value for '--channel'"),
        (["--runtime", "torch"], "Invalid value for '--runtime'"),
        (["-", "-"], "stdin can be one thing only"),
        (
            ["other/a.wav", "-o", "answers"],
            "in/a.wav and other/a.wav would both be answered in answers/a.wav.j",
        ),
    ],
)
def test_a_mistake_is_said_in_one_line(
    arguments: list[str], message: str, clips: list[str], run: Run
) -> None:
    code, out, err = run(clips[0], *arguments)

    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_an_output_that_cannot_be_written_is_said_before_the_first_clip(
    clips: list[str], run: Run, heard: list[int]
) -> None:
    Path("taken").write_text("a file")

    code, out, err = run(*clips, "-o", "taken/out.jsonl")

    assert (code, out, heard) == (5, "", [])
    assert "error: cannot write to taken: file exists" in err


# --- which answers are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "answers"])
def test_resume_hears_what_is_new_or_has_changed_or_could_not_be_read(
    output: str, clips: list[str], run: Run, heard: list[int], write_clip: Callable[..., Path]
) -> None:
    first, _, _ = run("in", "-o", output, "--resume")  # nothing is there yet, which is fine
    assert (first, len(heard)) == (3, 2)

    heard.clear()
    run("in", "-o", output, "--resume")
    assert heard == []

    write_clip("in/a.wav", seconds=2.0, sr=22050)  # changed
    write_clip("in/b.wav", seconds=3.0, sr=22050)  # readable now
    write_clip("in/d.wav", seconds=4.0, sr=22050)  # new
    code, _, _ = run("in", "-o", output, "--resume")

    assert code == 0
    assert sorted(heard) == [2 * 22050, 3 * 22050, 4 * 22050]
    run("in", "-o", f"fresh-{output}")
    for one, other in zip(everything(output), everything(f"fresh-{output}"), strict=True):
        assert one == other


def everything(output: str) -> list[bytes]:
    place = Path(output)
    parts = [place] if place.is_file() else [place / name for name in files(output)]
    return [part.read_bytes() for part in parts]


@pytest.mark.parametrize(
    "option",
    [
        ["--top", "2"],
        ["--labels", "happy,sad"],
        ["--channel", "left"],
        ["--min-confidence", "0.9"],
        ["--model", "other.keras"],
        ["--strict"],
        ["--set", "audio.max_duration_s=60"],
    ],
)
def test_resume_keeps_no_answer_to_another_question(
    option: list[str], clips: list[str], run: Run, heard: list[int], model_with_litert: Callable[[str], Path]
) -> None:
    for file in (model_with_litert("v2"), model_file.litert_path(model_with_litert("v2"))):
        shutil.copy(file, f"other{file.suffix}")
    run(clips[0], "-o", "out.jsonl")
    before = in_file("out.jsonl")
    heard.clear()

    run(clips[0], "-o", "out.jsonl", "--resume", *option)

    # A mono clip has no left channel, and is refused before it is heard.
    assert len(heard) == (0 if option[0] == "--channel" else 1)
    assert in_file("out.jsonl") != before


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_a_run_that_was_broken_off_twice_goes_on(
    output: str, clips: list[str], run: Run, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("in", "-o", f"whole-{output}")
    put = outputs.ToFile.write

    def interrupt_after(n: int) -> None:
        left = iter(range(n))

        def stop(self: Any, clip: Any, items: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            put(self, clip, items)

        monkeypatch.setattr(outputs.ToFile, "write", stop)

    for answers, resume in ((2, []), (0, ["--resume"])):
        interrupt_after(answers)
        assert run("in", "-o", output, *resume)[0] == 130
        assert not Path(output).exists()
    monkeypatch.setattr(outputs.ToFile, "write", put)
    heard.clear()
    code, _, _ = run("in", "-o", output, "--resume")

    assert code == 3
    assert len(heard) == 1  # the one clip that neither had written an answer for
    assert Path(output).read_bytes() == Path(f"whole-{output}").read_bytes()
    assert list(Path().glob("*partial*")) == []


@pytest.mark.parametrize("extra", [["-f", "jsonl"], ["-f", "csv"], ["-f", "json"]])
@pytest.mark.parametrize("target", ["clip.wav", "link.jsonl", "deep/../clip.wav"])
def test_a_clip_is_not_written_over(target: str, extra: list[str], clips: list[str], run: Run) -> None:
    Path("clip.wav").write_bytes(before := Path(clips[0]).read_bytes())
    Path("link.jsonl").symlink_to("clip.wav")
    Path("deep").mkdir()

    code, out, err = run("clip.wav", "-o", target, *extra)

    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: --output {target} would write over clip.wav")
    assert Path("clip.wav").read_bytes() == before
    assert sorted(map(str, Path().glob("*partial*"))) == []


def test_nothing_else_that_is_read_or_drawn_is_written_over(clips: list[str], run: Run) -> None:
    Path("list.csv").write_text(f"{clips[0]}\n")
    model = shutil.copy("models/v1.keras", "m.keras")
    partial = shutil.copy(clips[0], "a.jsonl.partial")
    Path("drawn.png").touch()
    before = Path(clips[0]).read_bytes()

    for given in (
        ("--files-from", "list.csv", "-o", "list.csv"),
        (clips[0], "--model", model, "-o", model, "-f", "jsonl"),
        (partial, "-o", "a.jsonl"),
        ("in", "-o", "in/a.jsonl", "--model", model, "--files-from", "in/a.jsonl"),
    ):
        Path("in/a.jsonl").write_text("x.wav\n")
        code, _, err = run(*given)
        assert (code, "would write over" in err) == (2, True), given

    assert Path("list.csv").read_text() == f"{clips[0]}\n"
    assert Path(partial).read_bytes() == before
    assert Path(model).read_bytes() == Path("models/v1.keras").read_bytes()


def test_a_clip_that_only_a_list_names_is_not_written_over_either(clips: list[str], run: Run) -> None:
    Path("clip.jsonl").write_bytes(before := Path(clips[0]).read_bytes())
    Path("list").write_text(f"{clips[1]}\nclip.jsonl\n")

    code, _, _ = run("--files-from", "list", "-o", "clip.jsonl")

    assert code == 2
    assert Path("clip.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_read_costs_nothing_but_the_code(
    clips: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may enter every folder, so the system has to be played."""
    Path("locked/inner").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if "locked" in os.fspath(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    code, out, err = run(clips[0], "locked", clips[2])
    alone = run("locked")

    assert code == 3
    assert [record["path"] for record in records(out)] == [clips[0], clips[2]]
    assert "warning: locked: the folder cannot be read" in err
    assert alone[0] == 5
    assert "error: cannot read locked: permission denied" in alone[2]


def test_a_name_that_no_system_opens_costs_the_others_nothing(clips: list[str], run: Run) -> None:
    code, out, _ = run(clips[0], "x" * 300, "", "y/" * 3000, clips[2])

    assert code == 3
    assert [record["status"] for record in records(out)] == ["ok", "error", "error", "error", "ok"]


def test_a_label_with_a_comma_stands_in_quotes(clips: list[str], run: Run) -> None:
    _, _, err = run(clips[0], "--labels", ' "a,b" , sad')

    assert "the model does not know 'a,b'." in err


def test_no_confidence_is_no_number(clips: list[str], run: Run) -> None:
    code, _, err = run(clips[0], "--min-confidence", "nan")

    assert code == 2
    assert "--min-confidence is nan, expected a number from 0 to 1" in err


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_stdout_may_be_named(output: str, clips: list[str], run: Run) -> None:
    code, out, _ = run(clips[0], "-o", output)

    assert code == 0
    assert [record["path"] for record in records(out)] == [clips[0]]
    assert not Path("-").exists()


def test_what_has_no_end_on_stdin_is_refused_and_costs_the_others_nothing(
    clips: list[str], run: Run, stdin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGEST_BYTES", 2**15)
    stdin(bytes(2**15 + 2))

    code, out, err = run(clips[0], "-", clips[0])

    assert code == 3
    assert [record["status"] for record in records(out)] == ["ok", "error", "ok"]
    assert "warning: -: more than 32768 bytes" in err


def answer(channel: str | None = None) -> Answer:
    return Answer("clip.wav", "happy", 1.0, {"happy": 1.0, "sad": 0.0}, 1.0, channel=channel)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_unchanged_keeps_the_answer_for_the_same_content_alone(write_clip: Callable[..., Path]) -> None:
    path = write_clip("clip.wav")
    previous = {digest(path): [answer()]}

    assert unchanged(str(path), previous, "mix", AudioConfig()) == [answer()]
    assert unchanged(("-", path.read_bytes()), previous, "mix", AudioConfig()) == [answer()]
    assert unchanged(str(path), {}, "mix", AudioConfig()) == []
    write_clip("clip.wav", f0=300)
    assert unchanged(str(path), previous, "mix", AudioConfig()) == []


@pytest.mark.parametrize("spoilt", ["gone", "folder"])
def test_unchanged_leaves_what_cannot_be_read_to_the_predictor(spoilt: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    if spoilt == "folder":
        path.mkdir()

    assert unchanged(str(path), {"0" * 64: [answer()]}, "mix", AudioConfig()) == []


def test_unchanged_keeps_all_channels_or_none(
    write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    path = write_clip("clip.wav", y=rng.uniform(-0.5, 0.5, (16000, 2)))
    left, right = answer("left"), answer("right")

    def kept(*answers: Answer) -> list[Answer]:
        return unchanged(str(path), {digest(path): list(answers)}, "each", AudioConfig())

    assert kept(left, right) == kept(right, left) == [left, right]
    # A run that was broken off between the two, or refused one that can be read now.
    assert kept(left) == kept(right) == kept() == []


def test_unchanged_keeps_no_channels_of_what_is_damaged() -> None:
    m4a = b"\0\0\0\x20ftypM4A " + bytes(64)  # the beginning of one
    previous = {hashlib.sha256(m4a).hexdigest(): [answer("left")]}

    assert unchanged(("x", m4a), previous, "each", AudioConfig()) == []


# --- what is read ---------------------------------------------------------------------------------------


def test_audio_on_stdin_is_answered_as_a_file(
    clips: list[str], run: Run, stdin: Callable[[bytes], None]
) -> None:
    stdin(Path(clips[0]).read_bytes())

    code, out, _ = run(clips[2], "-", clips[0])

    before, piped, after = records(out)
    assert code == 0
    assert [before["path"], piped["path"], after["path"]] == [clips[2], "-", clips[0]]
    assert piped == {**after, "path": "-"}


@pytest.mark.parametrize(("content", "error"), [(b"", "empty file"), (b"text", "not audio that can be read")])
def test_what_is_no_audio_on_stdin_is_no_input(
    content: bytes, error: str, run: Run, stdin: Callable[[bytes], None]
) -> None:
    stdin(content)

    code, out, err = run("-", "-o", "answers")

    assert (code, out) == (6, "")
    assert in_file("answers/-.jsonl")[0]["error"].startswith(error)
    assert f"warning: -: {error}" in err


def test_a_list_on_stdin_is_followed(clips: list[str], run: Run, stdin: Callable[[bytes], None]) -> None:
    stdin("\0".join(clips).encode())

    code, out, _ = run("--files-from", "-")

    assert code == 3
    assert [record["path"] for record in records(out)] == clips


def test_a_closed_stdin_is_no_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`

    for arguments in (["-"], ["--files-from", "-"]):
        code, out, err = run(*arguments)

        assert (code, out) == (6, "")
        assert err.splitlines()[-1] == "error: stdin is closed"


@pytest.fixture
def call(write_clip: Callable[..., Path], rng: np.random.Generator) -> str:
    """A recording of two channels, of which the right one is silent."""
    y = np.stack([noisy(rng, 1.0, 16000), np.zeros(16000)], axis=1)
    return str(write_clip("call.wav", y=y).name)


def test_a_channel_that_is_refused_is_named_and_the_other_is_an_answer(call: str, run: Run) -> None:
    code, out, err = run(call, "--channel", "each")

    left, right = records(out)
    assert code == 3  # there is an answer, so it is not 6
    assert (left["channel"], left["status"]) == ("left", "ok")
    assert (right["channel"], right["status"]) == ("right", "error")
    assert "warning: call.wav [right]: silent" in err
    assert run(call, "--channel", "left")[0] == 0
    assert run(call, "--channel", "right")[0] == 6


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "answers"])
def test_resume_forgets_no_channel_that_was_refused(output: str, call: str, run: Run) -> None:
    first, _, _ = run(call, "--channel", "each", "-o", output)
    before = everything(output)

    second, _, _ = run(call, "--channel", "each", "-o", output, "--resume")

    assert first == second == 3
    assert everything(output) == before


# --- how answers are written ---------------------------------------------------------------------------


def test_top_writes_the_most_probable_in_falling_order(clips: list[str], run: Run) -> None:
    _, out, _ = run(clips[0])
    probabilities = records(out)[0]["probabilities"]
    best = sorted(probabilities, key=probabilities.get, reverse=True)[:3]

    _, out, _ = run(clips[0], "--top", "3")
    _, words, _ = run(clips[0], "--top", "3", "--format", "label")
    _, table, _ = run(clips[0], "--top", "3", "--format", "table")
    _, rows, _ = run(clips[0], "--top", "3", "--format", "csv")

    assert list(records(out)[0]["probabilities"].items()) == [(label, probabilities[label]) for label in best]
    assert words.split() == best
    assert ", ".join(f"{label} {probabilities[label]:.0%}" for label in best) in table
    (row,) = csv.DictReader(io.StringIO(rows))
    assert {label for label in EMOTIONS if row[label]} == set(best)


def test_labels_restrict_what_can_be_answered_and_are_told_of(clips: list[str], run: Run) -> None:
    _, out, _ = run(clips[0])
    everything = records(out)[0]["probabilities"]

    _, out, _ = run(clips[0], "--labels", "sad, calm")

    (record,) = records(out)
    whole = everything["calm"] + everything["sad"]
    assert record["restricted_to"] == ["calm", "sad"]
    assert record["probabilities"] == pytest.approx(
        {label: everything[label] / whole for label in ("calm", "sad")}, abs=1e-4
    )
    assert record["label"] == max(record["probabilities"], key=record["probabilities"].get)
    assert "restricted_to" not in records(run(clips[0], "--labels", ",".join(EMOTIONS))[1])[0]


# --- what answers --------------------------------------------------------------------------------------


def test_a_litert_file_that_is_not_the_models_is_passed_over_and_that_is_said(
    clips: list[str], run: Run
) -> None:
    _, expected, err = run(*clips)
    assert "Keras" not in err
    Path("models/v1.tflite").write_bytes(b"of another model")

    code, out, err = run(*clips)
    refused, nothing, why = run(*clips, "--runtime", "litert")
    _, _, asked = run(*clips, "--runtime", "keras")

    assert code == 3
    for record, other in zip(records(out), records(expected), strict=True):
        assert record.get("probabilities") == pytest.approx(other.get("probabilities"), abs=1e-4)
    note = (
        "the LiteRT file models/v1.tflite does not belong to models/v1.keras: running it with Keras, which "
        "takes longer to start"
    )
    assert err.splitlines().count(note) == 1
    assert (refused, nothing) == (4, "")
    assert "error: the LiteRT file models/v1.tflite does not belong to models/v1.keras. Train it ag" in why
    assert "LiteRT file" not in asked


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["call.wav", "--hop", "2", "--timeline"], "--hop is now: speechemo timeline RECORDING"),
        (["call.wav", "--timeline"], "--timeline is now: speechemo timeline RECORDING"),
        (["--stream", "--top", "1"], "--stream is now: speechemo stream"),
    ],
)
def test_options_that_have_become_commands_say_so(arguments: list[str], command: str, run: Run) -> None:
    assert run(*arguments) == (2, "", f"error: predict {command}\n")


@pytest.mark.parametrize("arguments", [["a.wav", "--format", "srt"], ["a.wav", "--output", "a.rttm"]])
def test_formats_of_timelines_are_refused(arguments: list[str], run: Run) -> None:
    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert "jsonl" in err


def test_stream_answers_lines(
    clips: list[str], stdin: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    stdin("\n".join(clips).encode())

    code = app.run(["stream", "--model", "v1", "--top", "1"])

    out, err = capfd.readouterr()
    assert code == 0  # a line that could not be answered has its record, and is no failure of the stream
    assert [record["path"] for record in records(out)] == clips
    assert [len(record.get("probabilities", ())) for record in records(out)] == [1, 0, 1]
    assert len(err.splitlines()) == 1


def test_stream_refuses_several_answers_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stream", "--channel", "each"]) == 2
    assert capfd.readouterr().err.startswith("error: stream gives one answer a line")


def test_quiet_leaves_the_warnings(clips: list[str], run: Run) -> None:
    _, _, err = run(*clips, "--quiet")

    assert [line.split(":")[0] for line in err.splitlines()] == ["warning"]


@pytest.mark.parametrize(
    ("which", "expected"), [([0], 0), ([0, 2], 0), ([0, 1], 3), ([1], 6), ([1, 1], 6), ([], 2)]
)
def test_the_exit_code_tells_how_many_were_answered(
    which: list[int], expected: int, clips: list[str], run: Run
) -> None:
    code, out, _ = run(*(clips[i] for i in which))

    assert code == expected
    assert len(records(out)) == len(which)


# --- the shell completes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", list(EMOTIONS)),
        ("s", ["sad", "surprised"]),
        ("happy,s", ["happy,sad", "happy,surprised"]),
        ("happy,sad,", [f"happy,sad,{label}" for label in EMOTIONS]),
        ("x", []),
    ],
)
def test_the_last_label_of_a_list_is_completed(typed: str, expected: list[str]) -> None:
    assert options.complete_labels(typed) == expected


def test_a_model_is_completed_by_its_names() -> None:
    assert options.complete_models("") == ["v1", "v2", "v3", "packaged"]
    assert options.complete_models("v") == ["v1", "v2", "v3"]
    assert options.complete_models("models/") == []
    assert all(model_file.find(name, "models").suffix == ".keras" for name in options.complete_models(""))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("speechemo predict --labels calm,s", ["calm,sad", "calm,surprised"]),
        ("speechemo predict --model v", ["v1", "v2", "v3"]),
        ("speechemo predict --channel ", ["mix", "left", "right", "each"]),
    ],
)
def test_bash_is_told_how_a_line_can_go_on(line: str, expected: list[str]) -> None:
    words = line.split(" ")
    env = {
        **os.environ,
        "_SPEECHEMO_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }

    done = subprocess.run(
        [sys.executable, "-m", "speechemo_cli"], env=env, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == expected
    assert done.stderr == ""
