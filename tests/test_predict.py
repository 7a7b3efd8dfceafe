"""`speechemo predict` as a shell sees it: where answers go, which are kept, what the exit code says."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import noisy

from speechemo_cli.audio import reader
from speechemo_cli.cli import app
from speechemo_cli.cli.predict import unchanged
from speechemo_cli.config import AudioConfig
from speechemo_cli.corpus import EMOTIONS
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
        given = () if "--model" in arguments else ("--model", "v1")
        code = app.run(["predict", *map(str, [*given, *arguments])])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def clips(write_clip: Callable[..., Path], rng: np.random.Generator) -> list[str]:
    """Three clips in a tree, of which the second is silent."""
    for name, seconds, f0 in (("in/a.wav", 0.5, 100), ("in/sub/c.wav", 1.5, 220)):
        write_clip(name, y=noisy(rng, seconds, 16000, f0))
    write_clip("in/b.wav", y=np.zeros(16000))
    return ["in/a.wav", "in/b.wav", "in/sub/c.wav"]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
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


def contents(output: str) -> dict[str, bytes]:
    """What a file or the files of a folder hold."""
    place = Path(output)
    files = [path for path in (place, *place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


# --- where answers go ----------------------------------------------------------------------------------


def test_predict_writes_a_file_a_clip_in_the_tree_of_the_inputs(clips: list[str], run: Run) -> None:
    Path("in/b.wav").write_text("nonsense")
    code, out, err = run("in", "-o", "answers")

    assert (code, out) == (3, "")
    assert "warning: in/b.wav: not audio that can be read" in err
    assert sorted(contents("answers")) == ["a.wav.jsonl", "b.wav.jsonl", "sub/c.wav.jsonl"]
    _, expected, _ = run("in")
    assert [in_file(f"answers/{name}")[0] for name in sorted(contents("answers"))] == records(expected)


# --- which answers are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.csv", "answers"])
def test_resume_answers_what_is_new_or_has_changed_or_could_not_be_read(
    output: str, clips: list[str], run: Run, computed: list[int], write_clip: Callable[..., Path]
) -> None:
    first, _, _ = run("in", "-o", output, "--resume")  # nothing is there yet, which is fine
    assert (first, len(computed)) == (3, 2)

    computed.clear()
    run("in", "-o", output, "--resume")
    assert computed == []

    write_clip("in/a.wav", seconds=2.0, sr=22050)  # changed
    write_clip("in/b.wav", seconds=3.0, sr=22050)  # readable now
    write_clip("in/d.wav", seconds=4.0, sr=22050)  # new
    code, _, _ = run("in", "-o", output, "--resume")

    assert code == 0
    assert sorted(computed) == [2 * 22050, 3 * 22050, 4 * 22050]
    run("in", "-o", f"fresh-{output}")
    assert contents(output) == contents(f"fresh-{output}")


def test_resume_keeps_no_answer_to_another_question(clips: list[str], run: Run, computed: list[int]) -> None:
    run(clips[0], "-o", "first.jsonl")

    for option in (
        ["--top", "2"],
        ["--labels", "happy,sad"],
        ["--channel", "left"],
        ["--min-confidence", "0.9"],
        ["--model", "packaged"],
        ["--strict"],
        ["--set", "audio.max_duration_s=60"],
    ):
        shutil.copy("first.jsonl", "out.jsonl")
        computed.clear()
        run(clips[0], "-o", "out.jsonl", "--resume", *option)

        # A mono clip has no left channel, and is refused before; the packaged model has other features.
        assert len(computed) == (0 if option[0] in ("--channel", "--model") else 1), option
        assert in_file("out.jsonl") != in_file("first.jsonl"), option


def answer(channel: str | None = None) -> Answer:
    return Answer("clip.wav", "happy", 1.0, {"happy": 1.0, "sad": 0.0}, 1.0, channel=channel)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_unchanged_keeps_the_answer_for_the_same_content_alone(write_clip: Callable[..., Path]) -> None:
    path = write_clip("clip.wav")
    previous = {digest(path): {None: answer()}}

    assert unchanged(str(path), previous, "mix", AudioConfig()) == [answer()]
    assert unchanged(("-", path.read_bytes()), previous, "mix", AudioConfig()) == [answer()]
    assert unchanged(str(path), {}, "mix", AudioConfig()) == []
    write_clip("clip.wav", f0=300)
    # What cannot be read is left to the predictor.
    assert all(unchanged(one, previous, "mix", AudioConfig()) == [] for one in (str(path), "gone.wav", "."))
    m4a = b"\0\0\0\x20ftypM4A " + bytes(64)  # the beginning of one
    previous = {hashlib.sha256(m4a).hexdigest(): {"left": answer("left")}}
    assert unchanged(("x", m4a), previous, "each", AudioConfig()) == []


def test_unchanged_keeps_all_channels_or_none(
    write_clip: Callable[..., Path], rng: np.random.Generator
) -> None:
    path = write_clip("clip.wav", y=rng.uniform(-0.5, 0.5, (16000, 2)))
    left, right = answer("left"), answer("right")

    def reused(*answers: Answer) -> list[Answer]:
        return unchanged(
            str(path), {digest(path): {one.channel: one for one in answers}}, "each", AudioConfig()
        )

    assert reused(left, right) == reused(right, left) == [left, right]
    # A run that was broken off between the two, or refused one that can be read now.
    assert reused(left) == reused(right) == reused() == []


# --- what is read --------------------------------------------------------------------------------------


def test_predict_answers_the_others_beside_names_that_no_system_opens(clips: list[str], run: Run) -> None:
    code, out, _ = run(clips[0], "x" * 300, "", "y/" * 3000, clips[2])

    assert code == 3
    assert [record["status"] for record in records(out)] == ["ok", "error", "error", "error", "ok"]


def test_predict_refuses_what_has_no_end_on_stdin(
    clips: list[str], run: Run, stdin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGEST_BYTES", 2**15)
    stdin(bytes(2**15 + 2))

    code, out, err = run(clips[0], "-", clips[0])

    assert code == 3
    assert [record["status"] for record in records(out)] == ["ok", "error", "ok"]
    assert "warning: -: more than 32768 bytes" in err


def test_predict_answers_audio_on_stdin_as_a_file(
    clips: list[str], run: Run, stdin: Callable[[bytes], None]
) -> None:
    stdin(Path(clips[0]).read_bytes())

    code, out, _ = run(clips[2], "-", clips[0])

    before, piped, after = records(out)
    assert code == 0
    assert [before["path"], piped["path"], after["path"]] == [clips[2], "-", clips[0]]
    assert piped == {**after, "path": "-"}


def test_predict_has_no_input_where_stdin_is_no_audio(run: Run, stdin: Callable[[bytes], None]) -> None:
    stdin(b"text")

    code, out, err = run("-", "-o", "answers")

    assert (code, out) == (6, "")
    assert in_file("answers/-.jsonl")[0]["error"].startswith("not audio that can be read")
    assert "warning: -: not audio that can be read" in err


def test_predict_answers_for_one_channel_where_the_other_is_refused(
    write_clip: Callable[..., Path], rng: np.random.Generator, run: Run
) -> None:
    y = np.stack([noisy(rng, 1.0, 16000), np.zeros(16000)], axis=1)
    write_clip("call.wav", y=y)

    code, out, err = run("call.wav", "--channel", "each")

    left, right = records(out)
    assert code == 3  # there is an answer, so it is not 6
    assert (left["channel"], left["status"]) == ("left", "ok")
    assert (right["channel"], right["status"]) == ("right", "error")
    assert "warning: call.wav [right]: silent" in err
    assert run("call.wav", "--channel", "left")[0] == 0
    assert run("call.wav", "--channel", "right")[0] == 6
    # A resumed run forgets no channel that was refused.
    run("call.wav", "--channel", "each", "-o", "out.csv")
    before = Path("out.csv").read_bytes()
    assert run("call.wav", "--channel", "each", "-o", "out.csv", "--resume")[0] == 3
    assert Path("out.csv").read_bytes() == before


def test_predict_passes_over_a_litert_file_that_is_not_the_models_and_says_so(
    clips: list[str], run: Run
) -> None:
    _, expected, err = run(*clips)
    assert "Keras" not in err
    Path("models/v1.tflite").write_bytes(b"of another model")

    code, out, err = run(*clips)
    refused, nothing, why = run(*clips, "--runtime", "litert")

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


# --- the shell completes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--labels ", EMOTIONS),
        ("--labels happy,s", ["happy,sad", "happy,surprised"]),
        ("--labels happy,sad,", [f"happy,sad,{label}" for label in EMOTIONS]),
        ("--labels x", []),
        ("--model ", ["v1", "v2", "v3", "packaged"]),
        ("--model v", ["v1", "v2", "v3"]),
        ("--model models/", []),
    ],
)
def test_completion_offers_how_a_line_can_go_on(
    typed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SPEECHEMO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"speechemo predict {typed}")
    monkeypatch.setenv("COMP_CWORD", "3")

    app.run([])

    out, err = capsys.readouterr()
    assert (out.split(), err) == (list(expected), "")
