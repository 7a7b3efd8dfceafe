"""How measures are called and written wherever a person reads them: terminal, report and model card."""

from __future__ import annotations

TITLES = {
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro-F1",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE",
}
_SHARES = ("accuracy", "uar", "macro_f1", "ece")


def percent(share: float | None) -> str:
    """Write a share as a percentage with one digit: `60.4 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"


def measure(metric: str, value: float) -> str:
    """Write a value of one of `TITLES`: shares in per cent, the others with three digits.

    Parameters
    ----------
    metric : str
    value : float

    Returns
    -------
    str
    """
    return percent(value) if metric in _SHARES else f"{value:.3f}"


def counted(n: int, noun: str) -> str:
    """Return `1 clip` or `2 clips`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
