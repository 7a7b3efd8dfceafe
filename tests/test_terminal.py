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
import soundfile
from conftest import harmonic, read_terminal

from speechemo_cli.cli import app, terminal

# What a terminal takes for a colour.
COLOUR = re.compile(r"\x1b\[[0-9;]*?(3[0-7]|9[0-7])[0-9;]*m")
ESCAPE = re.compile(r"\x1b\[")

# What a script calls by the name that it has when it is installed.
SPEECHEMO = f'speechemo() {{ "{sys.executable}" -m speechemo_cli "$@"; }}\n'


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips in a folder a label. Treat it as read-only."""
    folder = tmp_path_factory.mktemp("data")
    for i, label in enumerate(["happy", "sad", "calm"]):
        (folder / label).mkdir()
        soundfile.write(folder / label / "clip.wav", harmonic(1.0, 16000, 120 + 20 * i), 16000)
    return folder


@pytest.fixture(autouse=True)
def _data(recordings: Path, _clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clips in the working folder, and one worker, which is enough for them."""
    Path("data").symlink_to(recordings)
    monkeypatch.setenv("SPEECHEMO_JOBS", "1")


def shell(script: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a script of bash."""
    return subprocess.run(
        ["bash", "-c", SPEECHEMO + script],
        **{"capture_output": True, "text": True, "check": False, **more},
    )


def in_terminal(script: str, columns: int = 80, **env: str) -> tuple[int, str]:
    """Run a script in a terminal of so many columns: its exit code, and everything that is shown."""
    leader, side = pty.fork()
    if leader == 0:
        env = {**os.environ, "TERM": "xterm-256color", **env}
        os.execvpe("bash", ["bash", "-c", SPEECHEMO + script], env)
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = read_terminal(side)
    _, status = os.waitpid(leader, 0)
    os.close(side)
    return os.waitstatus_to_exitcode(status), shown.decode()


# --- streams that are closed or full -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", ["--help", "extract data --quiet --features mfcc", "predict data --quiet"]
)
def test_stdout_may_be_closed_by_who_reads(arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"capture_output": False, "stdout": writing, "stderr": subprocess.PIPE}
    done = shell(f"speechemo {arguments}", **streams)
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("command", "what"), [("--help", "read or write a file"), ("config", "write the output")]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("speechemo {} > /dev/full", "no space left on device. Free some space and run it again"),
        (
            "ulimit -f 1; speechemo {} > out",
            "file too large. Raise the file size limit (ulimit -f)",
        ),
    ],
)
def test_stdout_that_takes_no_more_is_an_error_of_one_line(
    script: str, reason: str, unbuffered: str, command: str, what: str
) -> None:
    done = shell(script.format(command), env={**os.environ, "PYTHONUNBUFFERED": unbuffered})

    assert done.returncode == 5
    assert done.stderr == f"error: cannot {what}: {reason}: what was there before is intact\n"


@pytest.mark.parametrize("streams", ["<&- 2>&-", "2>/dev/full"])
def test_predict_needs_neither_stdin_nor_stderr(streams: str) -> None:
    done = shell(f"speechemo predict data/sad/clip.wav missing.wav --format label {streams}")

    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "extract data --features mfcc --export out.csv <&- >&- 2>&-",
        "predict data --output out.csv >&-",
    ],
)
def test_work_is_done_where_streams_are_closed(command: str) -> None:
    """As under a daemon; and no file gets the number of a closed stream, with what is meant for it."""
    done = shell(f"speechemo {command}", env={"PATH": os.defpath})

    assert (done.returncode, done.stdout) == (0, "")
    assert "error" not in done.stderr
    assert len(Path("out.csv").read_text().splitlines()) == 4


def test_closed_stdin_is_no_empty_list() -> None:
    done = shell("speechemo predict --files-from - <&-")

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
def test_results_are_shown_in_any_locale(env: dict[str, str], format_: str, shown: str) -> None:
    shutil.copy("data/sad/clip.wav", "naïve 声.wav")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))} | env

    done = shell(f"speechemo predict na* missing.wav --format {format_}", env=env, errors="replace")

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert shown in done.stdout  # escaped where the stream cannot hold it, and no question mark
    assert "missing.wav" in done.stdout
    assert "warning: missing.wav: no such file" in done.stderr


def test_terminal_gets_colour_and_a_bar_and_a_dumb_one_neither() -> None:
    script = "speechemo predict data missing.wav --format table; speechemo extract missing"
    _, coloured = in_terminal(script)
    _, dumb = in_terminal(script, TERM="dumb")
    piped = shell(script)

    assert COLOUR.search(coloured.partition("error:")[0])
    assert "predicting" in coloured
    assert "\x1b[1;31merror:\x1b[0m" in coloured
    assert not ESCAPE.search(dumb)
    assert not ESCAPE.search(piped.stdout + piped.stderr)
    assert "predicting" not in piped.stderr
    # The same answers everywhere.
    assert all(line in dumb for line in piped.stdout.splitlines() + piped.stderr.splitlines())


def test_notebook_gets_a_line_for_each_tenth_and_no_bar() -> None:
    # As a cell's `!speechemo ...` runs: in a terminal, with what Jupyter tells its kernels.
    code, shown = in_terminal("speechemo extract data --features mfcc -f json", JPY_PARENT_PID="1")

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


@pytest.mark.parametrize(("format_", "columns"), [("json", 1), ("table", 200)])
def test_results_on_a_terminal_are_whole_lines_and_the_bar_leaves_nothing(format_: str, columns: int) -> None:
    script = f"NO_COLOR=1 speechemo predict data --format {format_}"
    piped = shell(script)

    code, shown = in_terminal(script, columns=columns)

    assert code == 0
    assert "predicting" in shown or columns == 1
    assert not COLOUR.search(shown)
    remarks = piped.stderr.splitlines()
    assert [line for line in on_screen(shown) if line not in remarks] == piped.stdout.splitlines()


def test_results_go_where_the_shell_sends_them_while_the_bar_is_on_the_terminal() -> None:
    command = "speechemo predict data --format json"
    code, shown = in_terminal(
        f"{command} > file; a=$?; b=$({command}); {command} | head -c 1 > /dev/null; c=${{PIPESTATUS[0]}};"
        ' printf %s "$b" > captured; exit $((a == 0 && c == 0 || c == 141 ? 0 : 9))'
    )

    assert code == 0
    assert "predicting" in shown
    assert len(json.loads(Path("file").read_text())["clips"]) == 3
    assert Path("file").read_text() == Path("captured").read_text() + "\n"


def test_table_wraps_no_line_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")

    assert "long " * 30 in terminal.table(["a", "b"], [["long " * 30, "c"]])


@pytest.mark.parametrize(("columns", "bar"), [(120, 30), (60, 10), (49, 0), (20, 0)])
def test_bar_keeps_to_one_line_and_tells_first_what_matters(
    columns: int, bar: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress("extracting", "clips") as update:
        update(1, 8, text="some more words that take much room")
    err = capsys.readouterr().err

    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", err).split("extracting", 1)[1]
    shown = "extracting" + "".join(line.split("\n")[:20]).split("extracting")[0]
    assert shown.count("━") + shown.count("╸") + shown.count("╺") == bar
    assert "1/8" in err
    assert all(len(part) <= columns for part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err).splitlines())


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
    """By calls at these times, with so much done of a stage."""
    now = 0.0
    shown = io.StringIO()
    console = rich.console.Console(
        file=shown, width=120, force_terminal=True, get_time=lambda: now, _environ={"TERM": "xterm"}
    )
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    with terminal._bar("epochs") as show:
        for seconds, done, stage in steps:
            now = seconds
            show(done, total, "", stage)

    assert expected in shown.getvalue()


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert terminal.shows_progress()
    terminal.set_quiet(True)
    assert not terminal.shows_progress()


# --- homes and folders that cannot be written ----------------------------------------------------------


def _drop_privileges() -> None:
    """Let root be refused what others are (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def unprivileged(script: str, **more: object) -> subprocess.CompletedProcess[str]:
    return shell(script, preexec_fn=_drop_privileges, **more)


@pytest.fixture
def locked() -> Iterator[Callable[[Path], None]]:
    """Take the permission to write to a folder away until the test ends."""
    folders = []

    def lock(folder: Path) -> None:
        for path in (folder, *folder.rglob("*/")):
            path.chmod(0o555)
            folders.append(path)
        test = subprocess.run(["test", "-w", folder], preexec_fn=_drop_privileges, check=False)
        if test.returncode == 0:
            pytest.skip("who runs this may write everywhere")

    yield lock
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture
def homeless(locked: Callable[[Path], None]) -> dict[str, str]:
    """An environment whose home cannot be written; TMPDIR is `temp`."""
    for folder in (temp := Path("temp").absolute(), home := Path("home").absolute()):
        folder.mkdir()
    locked(home)
    return {**os.environ, "TMPDIR": str(temp), "HOME": str(home)}


@pytest.mark.parametrize("home", [True, False])
def test_predict_needs_no_home(home: bool, homeless: dict[str, str]) -> None:
    if not home:
        del homeless["HOME"]

    done = unprivileged("speechemo predict data/sad/clip.wav --format label", env=homeless)

    assert done.returncode == 0
    assert len(done.stdout.split()) == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("model: packaged")
    assert list(Path("temp").iterdir()) == []


@pytest.mark.slow
def test_train_needs_no_home_for_keras_and_matplotlib(corpus_folder: Path, homeless: dict[str, str]) -> None:
    before = set(Path("/tmp").iterdir())

    done = unprivileged(f"speechemo train {corpus_folder} --version v1 --epochs 2", env=homeless)

    assert done.returncode == 0
    assert re.fullmatch(r"ravdess: .*\n  8 labels: .*\n  4 speakers: .*\n", done.stderr)
    assert Path("models/v1.png").exists()
    assert list(Path("temp").iterdir()) == []
    assert not [path for path in set(Path("/tmp").iterdir()) - before if path.name in (".keras", ".cache")]


def test_commands_run_where_data_and_working_folder_are_read_only(
    recordings: Path, tmp_path: Path, locked: Callable
) -> None:
    here = tmp_path / "here"
    shutil.copytree(recordings, here / "data")
    locked(here)

    elsewhere = unprivileged("speechemo extract --store ../store --features mfcc --format json", cwd=here)
    answered = unprivileged("speechemo predict data --format label", cwd=here)
    refused = unprivileged("speechemo extract --features mfcc", cwd=here)
    untrained = unprivileged("speechemo train --version v1", cwd=here)

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


def test_store_that_is_read_only_serves_what_it_holds(locked: Callable) -> None:
    assert app.run(["extract", "data", "--features", "mfcc"]) == 0
    locked(Path("features"))

    done = unprivileged("speechemo extract data --features mfcc --format json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["cached"] == 3


def test_clips_and_folders_that_may_not_be_read_are_named_and_counted(
    recordings: Path, locked: Callable
) -> None:
    shutil.copytree(recordings, "mine")
    locked(Path("mine/calm"))  # skips where whoever runs this may do everything
    Path("mine/calm").chmod(0)
    Path("mine/sad/clip.wav").chmod(0)

    for command in ("extract mine --features mfcc", "predict mine --output out.jsonl"):
        done = unprivileged(f"speechemo {command} --quiet")

        assert done.returncode == 3
        assert sorted(done.stderr.splitlines()) == [
            "warning: mine/calm: the folder cannot be read",
            "warning: mine/sad/clip.wav: permission denied",
        ]
    some = unprivileged("speechemo predict mine/calm data/sad --quiet")
    assert (some.returncode, some.stderr) == (3, "warning: mine/calm: the folder cannot be read\n")
    none = unprivileged("speechemo predict mine/calm --quiet")
    assert none.returncode == 5
    assert none.stderr.splitlines()[-1].startswith("error: cannot read mine/calm: permission denied")


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


SAID = "error: interrupted; what is finished is kept, run it again to go on\n"


@pytest.mark.parametrize(
    ("where", "name", "code", "said"),
    [
        ("terminal.prepare_streams", "SIGINT", 130, SAID),
        ("threading.Thread.start", "SIGINT", 130, SAID),
        ("signal.signal", "SIGINT", 130, SAID),
        ("tempfile.mkdtemp", "SIGINT", 130, SAID),
        ("app.application", "SIGINT", 130, SAID),
        ("terminal.emit", "SIGINT", 130, SAID),
        ("tempfile.mkdtemp", "SIGHUP", 129, SAID),
        ("gc.freeze", "SIGINT", 0, ""),  # the work is done
    ],
)
def test_ctrl_c_or_sighup_while_the_program_starts_or_works_is_one_line_and_its_code(
    where: str, name: str, code: int, said: str
) -> None:
    """A signal that comes when something is called for the first time."""
    Path("temp").mkdir()
    before = "signal.default_int_handler" if name == "SIGINT" else "signal.SIG_DFL"
    script = INTERRUPTED.format(where=where, root=where.partition(".")[0], name=name, before=before)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(Path("temp").absolute())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (code, said)
    assert list(Path("temp").iterdir()) == []
