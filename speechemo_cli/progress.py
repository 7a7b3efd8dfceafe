"""Progress in lines, for a notebook or a log: there a bar that is drawn again is one line a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def progress_lines(what: str = "done", say: Callable[[str], object] = print) -> Callable[..., None]:
    """Return an `on_progress(done, total, ..., stage)` that tells each tenth of the work in a line.

    Parameters
    ----------
    what : str
        What the lines begin with, where the work does not name its stage.
    say : callable
        Takes a line. By default it is printed, which a notebook shows below its cell.
    """
    last, tenths = 0, 0

    def on_progress(done: int, total: int | None = None, *more: str) -> None:
        nonlocal last, tenths
        if done < last:  # the next stage
            tenths = 0
        last = done
        now = 10 * done // total if total else 0
        if now > tenths:
            tenths = now
            say(f"{more[-1] if more else what}: {done}/{total} ({10 * now} %)")

    return on_progress
