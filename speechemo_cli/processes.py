"""Processes that help another one, and end when it does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is said of a clip that a process died of.
CRASHED = "crashed the decoder, or ran out of memory"


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


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that never hear Ctrl-C, and hear it oneself when they are started.

    A terminal sends it to all of them, and the parent decides. One that came while the parent hands a
    process its first message would have that complain of half of it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard: list[int] = []
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ours[number] = signal.signal(number, lambda number, _: heard.append(number))
    resource_tracker.ensure_running()  # where it has to start its process, it unblocks what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for replaced, handler in ours.items():
            signal.signal(replaced, handler)
    for pressed in heard:
        if callable(ours[pressed]):
            ours[pressed](pressed, None)
        else:
            signal.raise_signal(pressed)
