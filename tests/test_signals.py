"""Ctrl-C from the first line of the program on: one line and 130, or nothing once the work is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals")

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


def test_sighup_is_kept_in_mind_while_the_program_starts(tmp_path: Path) -> None:
    done = interrupted("tempfile.mkdtemp", tmp_path, "SIGHUP", "signal.SIG_DFL")

    assert done.returncode == 128 + signal.SIGHUP
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_after_the_work_is_done_changes_nothing(tmp_path: Path) -> None:
    done = interrupted("gc.freeze", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
