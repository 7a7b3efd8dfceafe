"""The bar tells the pace and the time left of what is really being done."""

from __future__ import annotations

import io

import pytest
import rich.console
import rich.progress

from speechemo_cli.cli import bar


def shown(steps: list[tuple[float, int, str]], total: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What stands beside the bar after calls at these times, with so much done of a stage."""
    said: list[str] = []
    now = [0.0]
    console = rich.console.Console
    monkeypatch.setattr(
        rich.console, "Console", lambda **_: console(file=io.StringIO(), width=120, get_time=lambda: now[0])
    )
    monkeypatch.setattr(
        bar, "_reached", lambda task, unit, of=bar._reached: said.append(of(task, unit)) or ""
    )
    with bar.shown("epochs", colour=False) as show:
        for seconds, done, stage in steps:
            now[0] = seconds
            show(done, total, "", stage)
        said.clear()
    return said[0]


def test_the_time_left_is_that_of_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0, 0, "training"), (1, 1, "fold 1"), (10, 10, "fold 1"), (11, 11, "fold 2"), (20, 20, "fold 2")]

    assert shown(steps, 50, monkeypatch).startswith("20/50  1.0 epochs/s  0:00:30")


def test_what_an_earlier_run_did_says_nothing_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second of three folds was kept: ten epochs that took no time.
    steps = [(0, 0, "training"), (1, 1, "fold 1"), (10, 10, "fold 1"), (11, 21, "fold 3"), (15, 25, "fold 3")]

    assert shown(steps, 30, monkeypatch).startswith("25/30  1.0 epochs/s  0:00:05")


def test_a_stage_that_begins_at_nothing_has_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(0, 0, "finding"), (10, 100, "finding"), (11, 0, "listening"), (21, 5, "listening")]

    assert shown(steps, 10, monkeypatch).startswith("5/10  0.5 epochs/s  0:00:10")
