"""Kills, signals and dying workers: nothing is left running or lying about, and what is done is kept."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import soundfile
from conftest import COMMAND, harmonic, read_terminal, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

# What is planted in every Python process of a test: worker processes import it too.
SLOW = "time.sleep(0.05)"
STUCK = """
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
ABORT = "if 'bad' in path: os.abort()"
KILLED = "if 'bad' in path: os.kill(os.getpid(), signal.SIGKILL)"
SEGFAULT = "if 'bad' in path: import ctypes; ctypes.string_at(0)"

each_end = pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)


run = partial(subprocess.run, capture_output=True, text=True, check=False)


def obey_ctrl_c() -> None:
    """A shell lets what it runs in the background ignore it; the tests may be run so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of everything that is started here."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def make_clips(folder: Path, n: int, bad: tuple[int, ...] = (), labels: tuple[str, ...] = ("happy",)) -> Path:
    for label in labels:
        (folder / label).mkdir(parents=True)
    for i in range(n):
        path = folder / labels[i % len(labels)] / f"{'bad' if i in bad else 'clip'}{i:03d}.wav"
        soundfile.write(path, harmonic(0.25 + i / 500, 16000), 16000)
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process group of its own; what is left of it is killed at the end."""
    begun = []

    def popen(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=obey_ctrl_c,
        )
        begun.append(process)
        return process

    yield popen
    for process in begun:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def in_session(leader: int) -> set[int]:
    """The processes of a session that are alive."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.add(int(stat.parent.name))
    return found


def shards() -> list[Path]:
    return list(Path("features").glob("*/*.npz"))


def temporary_shards() -> list[Path]:
    return [path for path in Path("features").rglob("*") if path.name.startswith(".")]


def extract(folder: Path, *more: str) -> tuple[int, dict, str]:
    done = run([*COMMAND, "extract", str(folder), "--format", "json", *more])
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_extract_imports_nothing_of_the_working_folder_in_any_process(tmp_path: Path) -> None:
    data = make_clips(tmp_path / "data", 20)
    script = tmp_path / "bin" / "speechemo"
    script.parent.mkdir()
    script.write_text("from speechemo_cli.cli.app import main\nmain()\n")
    Path("work").mkdir()
    for name in ("joblib", "signal", "multiprocessing", "json", "numpy", "speechemo_cli", "sitecustomize"):
        Path("work", f"{name}.py").write_text(f"open('imported-{name}', 'w')\nraise SystemExit(9)\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    options = ["--jobs", "2", "--features", "mfcc", "--format", "json"]
    done = run([sys.executable, script, "extract", data, *options], cwd="work", env=env)

    assert (done.returncode, [path.name for path in Path("work").glob("imported*")]) == (0, []), done.stderr
    assert json.loads(done.stdout)["extracted"] == 20


# --- the parent is told to end ----------------------------------------------------------------------------


@each_end
def test_extract_that_is_ended_takes_its_workers_with_it_and_is_gone_on_with(
    number: signal.Signals, temp: Path, plant: Callable, start: Callable, tmp_path: Path
) -> None:
    plant(SLOW)
    process = start("extract", make_clips(tmp_path / "data", 100), "--jobs", 2, "--features", "mfcc")
    until(shards, 60)
    assert len(in_session(process.pid)) > 2

    os.kill(process.pid, number)

    assert until(lambda: not in_session(process.pid), 10) < 3
    out, err = process.communicate()
    assert out == ""
    if number == signal.SIGKILL:
        assert process.returncode == -number
        assert list(temp.iterdir())
    else:
        assert process.returncode == 128 + number
        (finished,) = re.findall(
            r"^error: interrupted; (\d+) of 100 clips done; run it again to go on$", err, re.M
        )
        assert list(temp.iterdir()) == []
    plant("pass")
    for path in temporary_shards():
        os.utime(path, (0, 0))  # a worker was killed while it wrote: what it left goes after an hour
    code, report, _ = extract(tmp_path / "data", "--features", "mfcc")
    assert code == 0
    assert report["cached"] + report["extracted"] == 100
    assert report["damaged"] == []
    assert report["cached"] >= (8 if number == signal.SIGKILL else int(finished))
    assert len(list(temp.iterdir())) == (number == signal.SIGKILL)  # which nobody can tidy up after
    assert temporary_shards() == []


def test_extract_ends_every_process_with_one_line_on_ctrl_c_in_a_terminal(
    temp: Path, plant: Callable, tmp_path: Path
) -> None:
    plant(SLOW)
    data = make_clips(tmp_path / "data", 100)
    leader, terminal = pty.fork()
    if leader == 0:
        obey_ctrl_c()
        os.execv(sys.executable, [*COMMAND, "extract", str(data), "-j", "2", "--features", "mfcc"])
    until(lambda: len(in_session(leader)) > 3, 60)  # the workers are starting, a bad moment
    os.write(terminal, b"\x03")
    began = time.monotonic()
    shown = read_terminal(terminal)
    _, status = os.waitpid(leader, 0)
    os.close(terminal)

    assert time.monotonic() - began < 3
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"Traceback" not in shown
    assert b"Warning" not in shown
    assert b"clips done; run it again to go on" in shown.splitlines()[-1]
    assert until(lambda: not in_session(leader), 10) < 2
    assert list(temp.iterdir()) == []


def test_command_line_shows_nothing_on_ctrl_c_while_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run([*COMMAND, "config"], preexec_fn=obey_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("presses", "seconds"), [(1, 3.0), (2, 1.0)])
def test_extract_that_is_stuck_ends_in_three_seconds_or_at_the_second_ctrl_c(
    presses: int, seconds: float, temp: Path, plant: Callable, start: Callable, tmp_path: Path
) -> None:
    plant(f"open('reading', 'w').close()\n{STUCK}")
    process = start("extract", make_clips(tmp_path / "data", 1))
    until(Path("reading").exists, 60)

    began = time.monotonic()
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, err = process.communicate(timeout=20)

    assert time.monotonic() - began < seconds
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("error: interrupted; 0 of 1 clips done")
    assert list(temp.iterdir()) == []


def test_extract_ignores_a_signal_that_was_ignored_before(plant: Callable, tmp_path: Path) -> None:
    """`nohup` has a command ignore that its terminal closes."""
    plant("os.kill(os.getpid(), signal.SIGHUP)")
    data = make_clips(tmp_path / "data", 2)
    assert run(["nohup", *COMMAND, "extract", data, "--quiet", "--features", "mfcc"]).returncode == 0


def test_predict_that_is_stopped_keeps_its_answers_and_says_how_to_go_on(
    temp: Path, plant: Callable, start: Callable, tmp_path: Path
) -> None:
    plant(SLOW)
    data = make_clips(tmp_path / "data", 100)
    command = ("predict", data, "--output", "out.jsonl", "--jobs", 2)
    process = start(*command)
    partial = Path("out.jsonl.partial")
    until(lambda: partial.exists() and partial.read_text().count("\n") >= 64, 60)

    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith("run it again with --output and --resume to go on")
    assert list(temp.iterdir()) == []
    answered = partial.read_text().splitlines()
    process = start(*command, "--resume")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert Path("out.jsonl").read_text().splitlines()[: len(answered)] == answered
    assert len(Path("out.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--output", "v1.keras"),
        pytest.param(("evaluate", "--protocol", "random-holdout"), marks=pytest.mark.slow),
    ],
)
def test_train_and_evaluate_end_on_ctrl_c_in_the_import_of_tensorflow(
    command: tuple[str, ...], temp: Path, start: Callable, tmp_path: Path
) -> None:
    """It takes seconds, and swallows the exception that Ctrl-C raises."""
    data = make_clips(tmp_path / "data", 8, labels=("happy", "sad"))
    Path("v1.keras").write_bytes(b"the old one")
    process = start(*command, data, "--version", "v1", "--epochs", 100_000)
    until(lambda: list(temp.glob("*/keras.json")), 120)
    time.sleep(0.5)

    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    # A second or two; the loading of a library cannot be interrupted, and takes long on a busy machine.
    assert time.monotonic() - began < 20
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("error: interrupted; what is finished is kept, run it again")
    assert ("--resume" in err) == (command[0] == "train")
    assert list(temp.iterdir()) == []
    assert Path("v1.keras").read_bytes() == b"the old one"


# --- a worker dies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crash",
    [ABORT, pytest.param(KILLED, marks=pytest.mark.slow), pytest.param(SEGFAULT, marks=pytest.mark.slow)],
    ids=["abort", "out of memory", "segfault"],
)
def test_extract_names_a_clip_that_kills_its_worker_twice_and_does_the_others(
    crash: str, temp: Path, plant: Callable, tmp_path: Path
) -> None:
    plant(crash)
    data = make_clips(tmp_path / "data", 30, bad=(7,))

    code, report, err = extract(data, "--jobs", "2", "--features", "mfcc")

    assert code == 3
    assert [(Path(failure["path"]).name, failure["error"]) for failure in report["failed"]] == [
        ("bad007.wav", "crashed the decoder, or ran out of memory")
    ]
    assert (report["extracted"], report["cached"]) == (29, 0)
    assert "Error" not in err
    assert err.count("crashed the decoder") == 1
    assert len([line for line in err.splitlines() if line.startswith("warning: ")]) == 1
    assert list(temp.iterdir()) == []
    plant("pass")
    code, report, _ = extract(data, "--jobs", "2", "--features", "mfcc")
    assert (code, report["extracted"], report["cached"]) == (0, 1, 29)


@pytest.mark.slow
def test_extract_loses_nothing_where_a_worker_is_killed_from_outside(
    plant: Callable, start: Callable, tmp_path: Path
) -> None:
    plant("open(f'worker{os.getpid()}', 'w').close()\n" + SLOW)
    process = start("extract", make_clips(tmp_path / "data", 80), "-j", 2, "--features", "mfcc", "-f", "json")
    until(shards, 60)
    workers = [int(path.name[6:]) for path in Path().glob("worker*")]
    os.kill(workers[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert json.loads(out)["extracted"] == 80
    assert len(list(Path().glob("worker*"))) > len(workers)
