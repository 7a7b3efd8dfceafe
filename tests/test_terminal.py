"""Streams, terminals and signals: results are not lost, and nothing but results is on stdout."""

from __future__ import annotations

import ctypes
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rich.console
from conftest import COMMAND, harmonic, read_terminal

from speechemo_cli.cli import app, terminal

# What a terminal takes for a colour.
COLOUR = re.compile(r"\x1b\[[0-9;]*?(3[0-7]|9[0-7])[0-9;]*m")
ESCAPE = re.compile(r"\x1b\[")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips in a folder a label. Treat it as read-only."""
    import soundfile

    folder = tmp_path_factory.mktemp("data")
    for i, label in enumerate(["happy", "sad", "calm"]):
        (folder / label).mkdir()
        soundfile.write(folder / label / "clip.wav", harmonic(1.0, 16000, 120 + 20 * i), 16000)
    return folder


@pytest.fixture
def clip(data: Path) -> str:
    return str(data / "sad" / "clip.wav")


def shell(script: str, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which "$@" is a command of speechemo."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, *map(str, arguments)],
        **{"capture_output": True, "text": True, "check": False, **more},
    )


def in_terminal(*arguments: object, columns: int = 80, module: bool = True, **env: str) -> tuple[int, str]:
    """Run a command in a terminal of so many columns: its exit code, and everything that is shown."""
    leader, side = pty.fork()
    if leader == 0:
        command = [*(COMMAND if module else COMMAND[:1]), *map(str, arguments)]
        os.execve(sys.executable, command, {**os.environ, "TERM": "xterm-256color", **env})
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = read_terminal(side)
    _, status = os.waitpid(leader, 0)
    os.close(side)
    return os.waitstatus_to_exitcode(status), shown.decode()


# --- streams that are closed or full -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["cache", "info"],
        ["extract", "DATA", "--quiet", "--features", "mfcc"],
        ["predict", "DATA", "--quiet"],
        pytest.param(
            ["train", "CORPUS", "--quiet", "--version", "v1", "--epochs", "1"], marks=pytest.mark.slow
        ),
    ],
    ids=lambda arguments: arguments[0],
)
def test_stdout_may_be_closed_by_who_reads(
    arguments: list[str], data: Path, request: pytest.FixtureRequest
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if "CORPUS" in arguments:  # large enough for a training
        data = request.getfixturevalue("corpus_folder")
    command = [*COMMAND, *(str(data) if word in ("DATA", "CORPUS") else word for word in arguments)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["extract", "DATA", "--features", "mfcc"]])
def test_stdout_on_a_full_disk_is_an_error_of_one_line(arguments: list[str], data: Path) -> None:
    done = shell('"$@" > /dev/full', *(data if word == "DATA" else word for word in arguments))

    assert done.returncode == 5
    assert re.fullmatch(r"error: cannot .*: no space left on device\. .*", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "what"), [("--help", "read or write a file"), ("config", "write the output")]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_beyond_the_file_size_limit_is_an_error_of_one_line(
    unbuffered: str, command: str, what: str
) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}

    done = shell('ulimit -f 1; "$@" > out', command, env=env)

    assert done.returncode == 5
    assert done.stderr == (
        f"error: cannot {what}: file too large. Raise the file size limit (ulimit -f):"
        " what was there before is intact\n"
    )


@pytest.mark.parametrize("streams", ["<&- 2>&-", "2>/dev/full"])
def test_predict_needs_neither_stdin_nor_stderr(streams: str, clip: str, tmp_path: Path) -> None:
    done = shell(f'"$@" {streams}', "predict", clip, tmp_path / "missing.wav", "--format", "label")

    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("streams", "command"),
    [
        ("<&- >&- 2>&-", ["extract", "DATA", "--features", "mfcc", "--export", "out"]),
        (">&-", ["predict", "DATA", "--output", "out"]),
    ],
)
def test_work_is_done_where_streams_are_closed(streams: str, command: list[str], data: Path) -> None:
    """As under a daemon; and no file gets the number of a closed stream, with what is meant for it."""
    given = [f"{word}.csv" if word == "out" else data if word == "DATA" else word for word in command]

    done = shell(f'"$@" {streams}', *given, env={"PATH": os.defpath})

    assert (done.returncode, done.stdout) == (0, "")
    assert "error" not in done.stderr
    assert len(Path("out.csv").read_text().splitlines()) == 4


def test_closed_stdin_is_no_empty_list(clip: str) -> None:
    done = shell('"$@" <&-', "predict", "--files-from", "-")

    assert (done.returncode, done.stderr) == (6, "error: stdin is closed\n")


# --- locales, colours, widths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "format_", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "table", r"na\udcc3\udcafve \udce5"),
        ({"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}, "csv", r"na\xefve \u58f0.wav"),
        ({"LANG": "C"}, "table", "naïve 声.wav"),
    ],
    ids=["no coercion", "ascii", "C"],
)
def test_results_are_shown_in_any_locale(
    env: dict[str, str], format_: str, shown: str, clip: str, tmp_path: Path
) -> None:
    name = shutil.copy(clip, tmp_path / "naïve 声.wav")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))} | env

    done = shell('"$@"', "predict", name, "missing.wav", "--format", format_, env=env, errors="replace")

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert shown in done.stdout  # escaped where the stream cannot hold it, and no question mark
    assert "missing.wav" in done.stdout
    assert "warning: missing.wav: no such file" in done.stderr


def test_terminal_gets_colour_and_a_bar_unless_it_wants_none(data: Path) -> None:
    arguments = ("predict", data, "--format", "table")
    code, plain = in_terminal(*arguments, NO_COLOR="1")
    dumb_code, dumb = in_terminal(*arguments, TERM="dumb")
    _, coloured = in_terminal(*arguments)
    piped = shell('"$@"', *arguments)

    assert code == dumb_code == piped.returncode == 0
    assert COLOUR.search(coloured)
    assert "predicting" in coloured
    assert not COLOUR.search(plain)
    assert not ESCAPE.search(dumb)
    assert not ESCAPE.search(piped.stdout + piped.stderr)
    assert "predicting" not in piped.stderr
    # The same answers everywhere.
    for line in piped.stdout.splitlines()[1:]:
        assert line.split()[-1] in plain
        assert line.split()[-1] in dumb


def test_notebook_gets_a_line_for_each_tenth_and_no_bar(data: Path) -> None:
    # As a cell's `!speechemo ...` runs: in a terminal, with what Jupyter tells its kernels.
    code, shown = in_terminal("extract", data, "--features", "mfcc", "-f", "json", JPY_PARENT_PID="1")

    assert code == 0
    assert re.findall(r"^extracting: .*%\)(?=\r\n)", shown, re.MULTILINE)[-1] == "extracting: 3/3 (100 %)"
    assert not ESCAPE.search(shown)


def on_screen(shown: str) -> list[str]:
    """What is left on a screen that is wide enough, when everything has been written, rubbed out and left."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif len(part) == 1:
            lines[row] = f"{lines[row][:column]:<{column}}{part}{lines[row][column + 1 :]}"
            column += 1
    return [line for line in lines if line]


@pytest.mark.parametrize("format_", ["table", "json"])
def test_results_on_a_terminal_are_whole_lines_and_the_bar_leaves_nothing(format_: str, data: Path) -> None:
    arguments = ("predict", data, "--format", format_)
    piped = shell('"$@"', *arguments, env={**os.environ, "NO_COLOR": "1"})

    for columns in (1, 200):
        code, shown = in_terminal(*arguments, columns=columns, NO_COLOR="1")
        assert code == 0
        assert "predicting" in shown or columns == 1
        remarks = piped.stderr.splitlines()
        assert [line for line in on_screen(shown) if line not in remarks] == piped.stdout.splitlines()


def test_results_go_where_the_shell_sends_them_while_the_bar_is_on_the_terminal(data: Path) -> None:
    piped = shell('"$@"', "predict", data, "--format", "json")
    code, shown = in_terminal(
        *("-c", "import subprocess, sys; sys.exit(subprocess.call(['bash', '-c', *sys.argv[1:]]))"),
        '"$@" > file; a=$?; b=$("$@"); "$@" | head -c 1 > /dev/null; c=${PIPESTATUS[0]};'
        ' printf %s "$b" > captured; exit $((a == 0 && c == 0 || c == 141 ? 0 : 9))',
        *("bash", *COMMAND, "predict", data, "--format", "json"),
        module=False,
    )

    assert code == 0
    assert "predicting" in shown
    assert Path("file").read_text() == piped.stdout
    assert Path("captured").read_text() == piped.stdout.rstrip("\n")


def test_error_is_coloured_on_a_terminal(tmp_path: Path) -> None:
    assert COLOUR.search(in_terminal("extract", tmp_path / "missing")[1])


def test_table_wraps_no_line_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")

    assert "long " * 30 in terminal.table(["a", "b"], [["long " * 30, "c"]])


@pytest.mark.parametrize(("columns", "bar"), [(120, 30), (60, 10), (49, 0), (20, 0)])
def test_bar_keeps_to_one_line_and_tells_first_what_matters(
    columns: int, bar: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal.begin()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress("extracting", "clips") as update:
        update(1, 8, "some more words that take much room")
    err = capsys.readouterr().err

    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", err).split("extracting", 1)[1]
    shown = "extracting" + "".join(line.split("\n")[:20]).split("extracting")[0]
    assert shown.count("━") + shown.count("╸") + shown.count("╺") == bar
    assert "1/8" in err
    assert all(len(part) <= columns for part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err).splitlines())


def beside_the_bar(steps: list[tuple[float, int, str]], total: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What stands beside the bar after calls at these times, with so much done of a stage."""
    said: list[str] = []
    now = [0.0]
    console = rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda **_: console(file=io.StringIO(), width=120, get_time=lambda: now[0])
    )
    monkeypatch.setattr(
        terminal, "_in_words", lambda task, unit, of=terminal._in_words: said.append(of(task, unit)) or ""
    )
    with terminal._bar("epochs") as show:
        for seconds, done, stage in steps:
            now[0] = seconds
            show(done, total, "", stage)
        said.clear()
    return said[0]


@pytest.mark.parametrize(
    ("steps", "total", "expected"),
    [
        (
            [
                (0, 0, "training"),
                (1, 1, "fold 1"),
                (10, 10, "fold 1"),
                (11, 11, "fold 2"),
                (20, 20, "fold 2"),
            ],
            50,
            "20/50  1.0 epochs/s  0:00:30",
        ),
        # The second of three folds was kept: ten epochs that took no time.
        (
            [
                (0, 0, "training"),
                (1, 1, "fold 1"),
                (10, 10, "fold 1"),
                (11, 21, "fold 3"),
                (15, 25, "fold 3"),
            ],
            30,
            "25/30  1.0 epochs/s  0:00:05",
        ),
        # A stage that begins at nothing has its own pace.
        (
            [(0, 0, "finding"), (10, 100, "finding"), (11, 0, "predicting"), (21, 5, "predicting")],
            10,
            "5/10  0.5 epochs/s  0:00:10",
        ),
    ],
)
def test_bar_tells_the_time_left(
    steps: list[tuple[float, int, str]], total: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert beside_the_bar(steps, total, monkeypatch).startswith(expected)


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal.begin()
    assert terminal.shows_progress()
    terminal.set_quiet(True)
    assert not terminal.shows_progress()
    terminal.begin()


# --- homes and folders that cannot be written ----------------------------------------------------------


def _drop_privileges() -> None:
    """Let root be refused what others are (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def unprivileged(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    return shell('"$@"', *arguments, preexec_fn=_drop_privileges, **more)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Take the permission to write to a folder away until the test ends."""
    folders = []

    def lock(folder: Path) -> Path:
        for path in (folder, *folder.rglob("*/")):
            path.chmod(0o555)
            folders.append(path)
        test = subprocess.run(["test", "-w", folder], preexec_fn=_drop_privileges, check=False)
        if test.returncode == 0:
            pytest.skip("who runs this may write everywhere")
        return folder

    yield lock
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture
def homeless(tmp_path: Path, locked: Callable[[Path], Path]) -> dict[str, str]:
    """An environment whose home cannot be written; TMPDIR is `temp`."""
    for folder in ("temp", "home"):
        (tmp_path / folder).mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "temp"), "HOME": str(locked(tmp_path / "home"))}


@pytest.mark.parametrize("home", [True, False])
def test_predict_needs_no_home(home: bool, clip: str, tmp_path: Path, homeless: dict[str, str]) -> None:
    if not home:
        del homeless["HOME"]

    done = unprivileged("predict", clip, "--format", "label", env=homeless)

    assert done.returncode == 0
    assert len(done.stdout.split()) == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("model: packaged")
    assert list((tmp_path / "temp").iterdir()) == []


@pytest.mark.slow
def test_train_needs_no_home_for_keras_and_matplotlib(
    corpus_folder: Path, tmp_path: Path, homeless: dict[str, str]
) -> None:
    before = set(Path("/tmp").iterdir())

    done = unprivileged("train", corpus_folder, "--version", "v1", "--epochs", 2, env=homeless)

    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "ravdess",
        "  8 labels",
        "  4 speakers",
    ]
    assert Path("models/v1.png").exists()
    assert list((tmp_path / "temp").iterdir()) == []
    assert not [path for path in set(Path("/tmp").iterdir()) - before if path.name in (".keras", ".cache")]


def test_commands_run_where_data_and_working_folder_are_read_only(
    data: Path, tmp_path: Path, locked: Callable
) -> None:
    here = tmp_path / "here"
    shutil.copytree(data, here / "data")
    locked(here)

    elsewhere = unprivileged(
        "extract", "--store", tmp_path / "store", "--features", "mfcc", "--format", "json", cwd=here
    )
    answered = unprivileged("predict", "data", "--format", "label", cwd=here)
    refused = unprivileged("extract", "--features", "mfcc", cwd=here)
    untrained = unprivileged("train", "--version", "v1", cwd=here)

    assert elsewhere.returncode == 0
    assert json.loads(elsewhere.stdout)["extracted"] == 3
    assert (answered.returncode, len(answered.stdout.splitlines())) == (0, 3)
    for done, folder in ((refused, "features"), (untrained, "models")):
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.splitlines()[-1].startswith(
            f"error: cannot write to {folder}: permission denied. "
        )
    # Said before the clips were looked for.
    assert len(untrained.stderr.splitlines()) == 1


def test_store_that_is_read_only_serves_what_it_holds(data: Path, locked: Callable) -> None:
    assert app.run(["extract", str(data), "--features", "mfcc"]) == 0
    locked(Path("features"))

    done = unprivileged("extract", data, "--features", "mfcc", "--format", "json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["cached"] == 3


def test_extract_names_a_clip_that_may_not_be_read(data: Path, tmp_path: Path, locked: Callable) -> None:
    shutil.copytree(data, tmp_path / "mine")
    locked(tmp_path / "mine" / "sad")  # skips where whoever runs this may do everything
    (tmp_path / "mine" / "sad" / "clip.wav").chmod(0)

    done = unprivileged("extract", tmp_path / "mine", "--features", "mfcc", "--format", "json")

    assert done.returncode == 3
    (failure,) = json.loads(done.stdout)["failed"]
    assert failure["error"] == "permission denied"


def test_extract_and_predict_name_and_count_a_folder_that_may_not_be_entered(
    data: Path, tmp_path: Path, locked: Callable
) -> None:
    shutil.copytree(data, tmp_path / "mine")
    locked(closed := tmp_path / "mine" / "calm").chmod(0)

    for command in ("extract --features mfcc", "predict --output out.jsonl"):
        done = unprivileged(*command.split(), tmp_path / "mine", "--quiet")

        assert done.returncode == 3
        assert done.stderr == f"warning: {closed}: the folder cannot be read\n"


# --- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stream", "--quiet"], "interrupted; what is finished is kept, run it again to go on"),
        (
            ["--debug", "predict"],
            "interrupted; what is finished is kept, run it again with --output and --resume to",
        ),
        (["train"], "interrupted; what is finished is kept, run it again with --resume to go on"),
        (["download", "tess"], "interrupted; nothing of it is kept, run it again to begin anew"),
        (["serve"], "stopped"),
    ],
)
def test_interrupted_command_says_what_is_kept(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "application", interrupt)

    assert app.run(arguments) == 128 + signal.SIGINT
    assert capsys.readouterr().err.startswith(f"error: {said}")


# --- Ctrl-C from the first line of the program on: one line and 130, or nothing once the work is done -----

INTERRUPTED = """
import gc, os, signal, sys, tempfile, threading
from speechemo_cli import files
from speechemo_cli.cli import app, terminal
signal.signal(signal.{name}, {before})
original = {where}
def interrupted(*arguments, **more):
    global {root}
    {where} = original
    os.kill(os.getpid(), signal.{name})
    return original(*arguments, **more)
{where} = interrupted
sys.argv[1:] = ["config", "--format", "json"]
app.main()
"""


def interrupted(
    where: str, folder: Path, name: str = "SIGINT", before: str = "signal.default_int_handler"
) -> subprocess.CompletedProcess[str]:
    """Send a signal when something is called for the first time."""
    root = where.partition(".")[0]
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(where=where, root=root, name=name, before=before)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "where",
    [
        "terminal.prepare_streams",
        "threading.Thread.start",
        "signal.signal",
        "tempfile.mkdtemp",
        "app.application",
        "terminal.emit",
    ],
)
def test_ctrl_c_while_the_program_starts_or_works_is_one_line_and_130(where: str, tmp_path: Path) -> None:
    done = interrupted(where, tmp_path)

    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.splitlines() == ["error: interrupted; what is finished is kept, run it again to go on"]
    assert list(tmp_path.iterdir()) == []


def test_sighup_while_the_program_starts_is_one_line_and_129(tmp_path: Path) -> None:
    done = interrupted("tempfile.mkdtemp", tmp_path, "SIGHUP", "signal.SIG_DFL")

    assert done.returncode == 128 + signal.SIGHUP
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_after_the_work_is_done_changes_nothing(tmp_path: Path) -> None:
    done = interrupted("gc.freeze", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
