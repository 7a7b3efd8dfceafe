"""How measures, groups, counts and progress are written wherever a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TITLES = {
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro-F1",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE",
}
# Groups of test clips by what is known of their speakers, in the order in which they matter: their names in
# JSON, and what a person reads beside a protocol and beside a model file.
UNSEEN, UNKNOWN, SEEN, TRAINED = "unseen_speakers", "unknown_speakers", "seen_speakers", "trained_on"
GROUPS = (UNSEEN, UNKNOWN, SEEN, TRAINED)
GROUP_TITLES = {UNSEEN: "unseen speakers", UNKNOWN: "unknown speakers", SEEN: "seen speakers"}
MODEL_GROUP_TITLES = {
    UNSEEN: "unseen speakers",
    UNKNOWN: "files it was not trained on",
    SEEN: "other clips of seen speakers",
    TRAINED: "clips it was trained on",
}
_SHARES = ("accuracy", "uar", "macro_f1", "ece")


def percent(share: float | None) -> str:
    """Write a share as a percentage with one digit: `60.4 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"


def measure(metric: str, value: float) -> str:
    """Write a value of one of `TITLES`: shares in per cent, the others with three digits."""
    return percent(value) if metric in _SHARES else f"{value:.3f}"


def interval(metric: str, ci95: Sequence[float] | None, why_none: str = "", before: str = "") -> str:
    """Write a 95 % interval, with some words before it: `55.1 % to 70.2 %`; where there is none, why."""
    if not ci95:
        return why_none or "no interval"
    return before + " to ".join(measure(metric, edge) for edge in ci95)


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return `1 clip` or `2 clips`."""
    return f"{n} {noun}" if n == 1 else f"{n} {plural or f'{noun}s'}"


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
