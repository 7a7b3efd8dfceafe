"""The bar that shows on a terminal how far a command has come."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Terminals narrower than these show a short bar, and none: how much is done is worth more.
_WIDE = 100
_NARROW = 50


@contextmanager
def shown(unit: str, *, colour: bool) -> Iterator[Callable[[int, int | None, str, str], None]]:
    """Show a bar on stderr: what is being done, how much of it, at what pace, and the time left.

    It keeps to one line, whose end is left out where the terminal is narrow.

    Yields
    ------
    callable
        `show(done, total, text, stage)`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Reached(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(_reached(task, unit), no_wrap=True, overflow="ellipsis")

    console = Console(stderr=True, no_color=not colour)
    width = 30 if console.width >= _WIDE else 10
    bars = [BarColumn(bar_width=width, table_column=Column(no_wrap=True))] if console.width >= _NARROW else []
    with Progress(
        TextColumn("{task.description}", markup=False),
        *bars,
        Reached(table_column=Column(no_wrap=False)),
        console=console,
        transient=True,
        redirect_stdout=False,  # rich would take results for remarks: to stderr, and wrapped
    ) as bar:
        task = bar.add_task("", total=None, skipped=0)
        last, at = 0, ""

        def show(done: int, total: int | None, text: str, stage: str) -> None:
            nonlocal last, at
            if done < last:
                bar.reset(task, skipped=0)
            elif stage != at:
                # A stage whose work was kept by an earlier run passes at once, and says nothing of the pace.
                bar.update(task, skipped=bar.tasks[0].fields["skipped"] + max(0, done - last - 1))
            last, at = done, stage
            bar.update(task, completed=done, total=total, description=stage, text=text)

        yield show


def _reached(task: Any, unit: str) -> str:
    """Say it in words. The pace is the mean: clips come in batches, within which no time passes."""
    parts = [f"{task.completed:.0f}/{'?' if task.total is None else f'{task.total:.0f}'}"]
    worked = task.completed - task.fields["skipped"]
    if worked and task.elapsed:
        parts.append(f"{worked / task.elapsed:.1f} {unit}/s")
        if task.total is not None:
            left_s = (task.total - task.completed) * task.elapsed / worked
            parts.append(str(timedelta(seconds=round(left_s))))
    return "  ".join([*parts, *filter(None, [task.fields.get("text")])])
