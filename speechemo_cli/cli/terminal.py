"""Everything that reaches a terminal or a pipe goes through here; and Ctrl-C, `kill` and a closed terminal.

After these the command ends within three seconds, and at once when asked twice.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TextIO

import typer

from speechemo_cli.errors import ExitCode
from speechemo_cli.files import access_error, display_name
from speechemo_cli.processes import restore_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


# Takes a bar off the line where the cursor is; it is drawn again below what is written there.
_EMPTY_LINE = "\r\x1b[2K"
# Terminals narrower than these show a short bar, and none: how much is done is worth more.
_WIDE = 100
_NARROW = 50
# How long a command may take to stop in order.
_GRACE_S = 2.0

_received = 0
_raises = False


@dataclass
class Shown:
    """What a run shows, and how far it has come."""

    quiet: bool = False  # no notes and no progress
    stage: str = ""
    done: int = 0
    total: int | None = None
    over_bar: bool = False  # results go to a terminal that shows a bar


shown = Shown()


def set_quiet(quiet: bool) -> bool:
    """Silence notes and progress for the rest of the run: what --quiet does when it is read."""
    shown.quiet = quiet
    return quiet


def prepare_streams() -> None:
    """Let no character stop the program after the work is done, whatever the locale, and no closed stream.

    On a UTF-8 stdout a name that is no UTF-8 goes out as the bytes it came in as; an ASCII stdout
    gets escapes. A stream that is closed from the beginning takes everything and shows it to nobody.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It gets the number of the closed one, which else the next file would get, with what is meant
            # for the stream.
            nowhere = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":  # a closed stdin is told from an empty one
                setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8" and stream is sys.stdout
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.RawIOBase):
        # As PYTHONUNBUFFERED makes it. Of a disk that gets full it would take a part and not say so.
        given, errors = sys.stdout, sys.stdout.errors
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(given.detach()), given.encoding, errors)


def emit(text: str) -> None:
    """Write a result to stdout, as `write`; the end of its last line may be missing."""
    write(text if text.endswith("\n") else text + "\n")


def write(text: str) -> None:
    """Write whole lines of a result to stdout, now.

    Exits with 141 where nobody reads any more; AccessError where the disk behind a redirection is full.
    """
    if shown.over_bar and text:
        text = f"{_EMPTY_LINE}{text}"
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(ExitCode.STDOUT_CLOSED) from None
        raise access_error("write", "the output", error) from error


def give_up_stdout() -> None:
    """Write nothing more to stdout if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    # What is left in the buffer would fail once more when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def note(text: str) -> None:
    """Say something to the person, on stderr."""
    if not shown.quiet:
        _to_stderr(_escaped(text))


def warn(text: str) -> None:
    """Say something that matters, on stderr, --quiet or not."""
    _to_stderr(f"warning: {_escaped(text)}")


def error_line(text: str) -> None:
    """Say in one line why the command ends."""
    line = display_name(" ".join(text.split()))
    _to_stderr(f"\x1b[1;31merror:\x1b[0m {line}" if colour(sys.stderr) else f"error: {line}")


def _escaped(text: str) -> str:
    """Escape what a name in a message may hold and no terminal should get."""
    return "\n".join(map(display_name, text.split("\n")))


def _to_stderr(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints
    except OSError:
        # Nobody reads it; the exit code still tells, if Python can get rid of this at its end.
        _drop(sys.stderr)


def colour(stream: Any) -> bool:
    """Whether a stream wants colour: a terminal, and neither NO_COLOR nor TERM=dumb."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def on_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def draws_blocks() -> bool:
    """Whether stdout can show block characters."""
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> str:
    """Lay out rows as text: the first column left, the others right, as wide as they need.

    Names in them may come from anywhere: what no terminal should get is written as escapes.
    """
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=SIMPLE_HEAD if draws_blocks() else ASCII2,
        title=Text(display_name(title)) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        grid.add_column(
            Text(display_name(column)), justify="left" if i == 0 else "right", no_wrap=True, overflow="fold"
        )
    for row in rows:
        # Text, not str: a file name may hold what rich would take for markup.
        grid.add_row(*(Text(display_name(cell)) for cell in row))
    out = io.StringIO()
    Console(
        file=out,
        force_terminal=colour(sys.stdout),
        no_color=not colour(sys.stdout),
        width=10_000,  # never cut or wrap: the terminal does that, and a pipe needs whole lines
        legacy_windows=False,
    ).print(grid)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def shows_progress() -> bool:
    """Whether somebody would see how far a command is."""
    return not shown.quiet and (sys.stderr.isatty() or _in_notebook())


def _draws_bar() -> bool:
    return shows_progress() and not _in_notebook()


def _in_notebook() -> bool:
    # Of Jupyter, for its kernels and what they start. A cell's `!command` has a terminal for which each time
    # that a bar is drawn is another line.
    return "JPY_PARENT_PID" in os.environ


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a bar with rate and time left on stderr, if that is a terminal; lines in a notebook; else nothing.

    Yields `update(done, total, stage=what, text="")`. Results and a bar share a terminal.
    """
    shown.over_bar = _draws_bar() and on_terminal() and os.environ.get("TERM") != "dumb"
    try:
        with _display(unit) as show:

            def update(done: int, total: int | None, stage: str = what, text: str = "") -> None:
                go_on()
                shown.stage, shown.done, shown.total = stage, done, total
                show(done, total, text, stage)

            show(0, None, "", what)
            yield update
        shown.stage = ""  # it is done; one that is broken off comes by here no more
    finally:
        shown.over_bar = False


def _display(unit: str) -> AbstractContextManager[Callable[[int, int | None, str, str], None]]:
    if _draws_bar():
        return _bar(unit)
    if not shows_progress():
        return nullcontext(lambda *_: None)
    from speechemo_cli.formatting import progress_lines

    return nullcontext(progress_lines(say=lambda line: _to_stderr(_escaped(line))))


def take_back_stderr() -> None:
    """Write to stderr as at the beginning, where a bar or a redirection is not going to be ended."""
    restore_stderr()
    if _draws_bar() and sys.__stderr__ is not None and sys.stderr is not sys.__stderr__:
        sys.stderr = sys.__stderr__
        _to_stderr(f"{_EMPTY_LINE}\x1b[?25h", end="")  # an empty line, and the cursor that the bar hid


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, int | None, str, str], None]]:
    """Show a bar on stderr: what is being done, how much of it, at what pace, and the time left.

    It keeps to one line, whose end is left out where the terminal is narrow. Yields
    `show(done, total, text, stage)`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Reached(ProgressColumn):
        def render(self, task: Any) -> Text:
            parts = [f"{task.completed:.0f}/{'?' if task.total is None else f'{task.total:.0f}'}"]
            worked = task.completed - task.fields["skipped"]
            if worked and task.elapsed:
                # The mean: clips come in batches, within which no time passes.
                parts.append(f"{worked / task.elapsed:.1f} {unit}/s")
                if task.total is not None:
                    left_s = (task.total - task.completed) * task.elapsed / worked
                    parts.append(str(timedelta(seconds=round(left_s))))
            parts += filter(None, [task.fields.get("text")])
            return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")

    console = Console(stderr=True, no_color=not colour(sys.stderr))
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
                # A stage whose work was kept by a previous run passes at once, and says nothing of the pace.
                bar.update(task, skipped=bar.tasks[0].fields["skipped"] + max(0, done - last - 1))
            last, at = done, stage
            bar.update(task, completed=done, total=total, description=stage, text=text)

        yield show


def exit_for(failed: int, total: int) -> None:
    """End with 3 where some clips failed and with 6 where all did."""
    if failed:
        raise typer.Exit(ExitCode.NO_INPUT if failed >= total else ExitCode.SOME_FAILED)


def watch_signals(leave: Callable[[int], None]) -> None:
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
    be done whole, or asks `signal_received` by itself.
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


def signal_received() -> int:
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
