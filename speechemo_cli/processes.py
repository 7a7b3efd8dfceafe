"""Processes that help another one, and end when it does."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

# What is said of a clip that a process died of.
CRASHED = "crashed the decoder, or ran out of memory"
_SHELL = "/bin/sh"
# Runs a program beside something that waits for the end of stdin and then kills their group, which is also
# what the program has started.
_WATCHED = """
exec 3<&0
"$@" 3<&- & program=$!
(read -r _ <&3; kill -9 0) & watch=$!
wait $program; code=$?
exec 2>/dev/null  # some shells tell whom they end
kill -9 $watch; wait $watch
exit $code
"""


def end_with(parent: int) -> None:
    """Let this process end when its parent does, however that ends.

    Parameters
    ----------
    parent : int
        Process id.
    """
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def run(command: list[str], stderr: IO[bytes], timeout_s: float | None = None) -> int:
    """Run a program of others, which ends when this process does, however that ends.

    It cannot be asked to look after its parent, so a shell does, which takes a thousandth of a second. Where
    there is none, the program ends with the block it is run in, but not where this process is killed.

    Parameters
    ----------
    command : list of str
        The program and its arguments; it gets nothing on stdin, and its stdout is thrown away.
    stderr : binary file
        Where it says what is wrong.
    timeout_s : float, optional
        How long it may take.

    Returns
    -------
    int
        Its exit status.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer, and is ended.
    OSError
        It cannot be started.
    """
    watched = Path(_SHELL).exists()
    with subprocess.Popen(  # noqa: S603
        [_SHELL, "-c", _WATCHED, "sh", *command] if watched else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        process_group=0,  # also because a terminal sends Ctrl-C to a whole group, and it is for us to decide
    ) as process:
        assert process.stdin is not None
        try:
            return process.wait(timeout_s)
        except BaseException:
            process.stdin.close() if watched else process.kill()
            process.wait()
            raise
