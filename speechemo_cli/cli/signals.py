"""Ctrl-C, `kill`, a closed terminal: the command ends within three seconds, and at once when asked twice."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long a command may take to stop in order.
_GRACE_S = 2.0

_received = 0
_raises = False


def watch(leave: Callable[[int], None]) -> None:
    """Let the first signal raise KeyboardInterrupt in `raising`; end the process if that does not.

    `leave(signal)` tells the person, tidies up and ends the process. It is called in a thread of its own
    at the second signal, and where the first has not ended the process in time: a library may be in the
    middle of a long calculation, or take the exception for something else.
    """
    watched = [
        number
        for name in ("SIGINT", "SIGTERM", "SIGHUP")
        # What is ignored stays ignored: `nohup` does so with SIGHUP, a shell with a background job's SIGINT.
        if (number := getattr(signal, name, None)) is not None
        and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    ]
    if os.name == "posix":
        # Written to by the signal itself, whatever the interpreter is doing.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)

        def follow() -> None:
            number = 0
            while number not in watched:
                number = os.read(reading, 1)[0]
            select.select([reading], [], [], _GRACE_S)
            leave(number)

        threading.Thread(target=follow, daemon=True).start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in watched:
        signal.signal(number, _interrupt)


@contextmanager
def raising(wanted: bool = True) -> Iterator[None]:
    """Raise KeyboardInterrupt inside the block, for a signal from before it too.

    Around it, and where it is not wanted, a signal is kept in mind and no more: what is done there has to
    be done whole, or asks `received` by itself.
    """
    global _raises
    before, _raises = _raises, wanted
    try:
        if wanted:
            go_on()
        yield
    finally:
        _raises = before
    if before:
        go_on()


def received() -> int:
    """Return the signal that asked the command to end, or 0."""
    return _received


def go_on() -> None:
    """Raise KeyboardInterrupt once more if somebody swallowed it.

    Imports of large libraries do: their `try: import ... except: pass` takes it for a missing module.
    """
    if _received:
        raise KeyboardInterrupt


def _interrupt(number: int, _frame: object) -> None:
    global _received
    if not _received:
        _received = number
        if _raises:
            raise KeyboardInterrupt
