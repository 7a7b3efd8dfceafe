"""Processes that end with their parent, and libraries that are kept quiet."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is said of a clip that a process died of.
CRASHED = "crashed the decoder, or ran out of memory"

_STDERR = 2
_quieting = threading.Lock()
_n_quiet = 0
_kept: int | None = None


def end_with(parent: int) -> None:
    """Let this process end when its parent, of that process id, does, however that ends."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, and get it oneself when they are started.

    A terminal sends it to all of them, and the parent decides. One that came while the parent hands a
    process its first message would have that complain of half of it.
    """
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    received: list[int] = []
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ours[number] = signal.signal(number, lambda number, _: received.append(number))
    resource_tracker.ensure_running()  # where it has to start its process, it unblocks what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for replaced, handler in ours.items():
            signal.signal(replaced, handler)
    for pressed in received:
        if callable(ours[pressed]):
            ours[pressed](pressed, None)
        else:
            signal.raise_signal(pressed)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop whatever is written to stderr in the block; blocks of several threads may overlap.

    TensorFlow's C++ code writes there before any log level is read ("oneDNN custom operations are
    on", "Could not find cuda drivers"), so neither a logger nor `sys.stderr` can stop it.
    """
    global _n_quiet, _kept
    with _quieting:
        if not _n_quiet and sys.stderr is not None:
            sys.stderr.flush()
            try:
                _kept = os.dup(_STDERR)
            except OSError:
                pass  # it is closed
            else:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, _STDERR)
                os.close(nowhere)
        _n_quiet += 1
    try:
        yield
    finally:
        with _quieting:
            _n_quiet -= 1
            if not _n_quiet and _kept is not None:
                sys.stderr.flush()
                restore_stderr()
                os.close(_kept)
                _kept = None


def restore_stderr() -> None:
    """Write to stderr again, where a block that drops it is not going to be ended."""
    if _kept is not None:
        os.dup2(_kept, _STDERR)
