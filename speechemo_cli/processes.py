"""Processes that help another one, and end when it does."""

from __future__ import annotations

import os
import threading
import time

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
