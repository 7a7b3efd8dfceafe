"""Everything that reaches a terminal, a pipe or a file goes through here."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

import typer

from speechemo_cli import stderr
from speechemo_cli.cli import signals
from speechemo_cli.errors import ExitCode
from speechemo_cli.files import access_error, display_name
from speechemo_cli.inference.results import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager


_quiet = False
_NOWHERE: tuple[str, int, int | None] = ("", 0, None)
_reached = _NOWHERE
# Takes a bar off the line where the cursor is; it is drawn again below what is written there.
_EMPTY_LINE = "\r\x1b[2K"
_over_bar = False
_begun = ""


def set_quiet(quiet: bool) -> None:
    """Silence notes and progress for the rest of the process."""
    global _quiet
    _quiet = quiet


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
    stderr.separate()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8" and stream is sys.stdout
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def emit(text: str) -> None:
    """Write a result to stdout, as whole lines, now; as `write`."""
    write(text if text.endswith("\n") else text + "\n")


def write(text: str) -> None:
    """Write a part of a result to stdout, now; the begin of a line over a bar with its end.

    Raises
    ------
    typer.Exit
        With 141 where nobody reads any more.
    AccessError
        It cannot be written: the disk behind a redirection is full.
    """
    global _begun
    if _over_bar:
        lines, end, _begun = f"{_begun}{text}".rpartition("\n")
        text = f"{_EMPTY_LINE}{lines}{end}" if end else ""
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


def emit_json(command: str, document: Mapping[str, Any]) -> None:
    """Write one JSON document. ASCII only, so that any pipe carries any file name."""
    emit(json.dumps({"schema": SCHEMA, "command": command, **document}, indent=2))


def note(text: str) -> None:
    """Say something to the person, on stderr."""
    if not _quiet:
        _to_stderr(_told(text))


def warn(text: str) -> None:
    """Say something that matters, on stderr, --quiet or not."""
    _to_stderr(f"warning: {_told(text)}")


def error_line(text: str) -> None:
    """Say in one line why the command ends."""
    line = display_name(" ".join(text.split()))
    _to_stderr(f"\x1b[1;31merror:\x1b[0m {line}" if colour(sys.stderr) else f"error: {line}")


def _told(text: str) -> str:
    """Escape what a name in a message may hold and no terminal should get."""
    return "\n".join(map(display_name, text.split("\n")))


def _to_stderr(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints
    except OSError:
        # Nobody listens; the exit code still tells, if Python can get rid of this at its end.
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

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequence of str
    title : str

    Returns
    -------
    str
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
    """Whether somebody would see a bar."""
    return not _quiet and sys.stderr.isatty()


def reached() -> tuple[str, int, int | None]:
    """Return how far the command has come: the stage, what of it is done, and how much there is to do."""
    return _reached


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a bar with rate and time left on stderr, if that is a terminal; else nothing.

    Yields
    ------
    callable
        `update(done, total, text="")`.
    """
    with _results_over_bar(), _bar(unit) as show:

        def update(done: int, total: int | None, text: str = "", stage: str = what) -> None:
            global _reached
            signals.go_on()
            _reached = (stage, done, total)
            show(done, total, text, stage)

        show(0, None, "", what)
        yield update
    global _reached
    _reached = _NOWHERE  # the stage is done; one that is broken off comes by here no more


@contextmanager
def _results_over_bar() -> Iterator[None]:
    """Let results and a bar share a terminal."""
    global _over_bar, _begun
    end = ""
    _over_bar = shows_progress() and on_terminal() and os.environ.get("TERM") != "dumb"
    try:
        yield
    except BaseException:
        end = "\n"  # what comes now is no result
        raise
    finally:
        _over_bar = False
        begun, _begun = _begun, ""
        if begun:
            write(f"{begun}{end}")


def take_back_stderr() -> None:
    """Write to stderr as at the beginning, where a bar or a redirection is not going to be ended."""
    stderr.take_back()
    if shows_progress() and sys.__stderr__ is not None and sys.stderr is not sys.__stderr__:
        sys.stderr = sys.__stderr__
        _to_stderr(f"{_EMPTY_LINE}\x1b[?25h", end="")  # an empty line, and the cursor that the bar hid


def _bar(unit: str) -> AbstractContextManager[Callable[[int, int | None, str, str], None]]:
    if not shows_progress():
        return nullcontext(lambda *_: None)
    from speechemo_cli.cli import bar

    return bar.shown(unit, colour=colour(sys.stderr))


def exit_for(failed: int, total: int) -> None:
    """End with 3 where some clips failed and with 6 where all did.

    Raises
    ------
    typer.Exit
    """
    if failed:
        raise typer.Exit(ExitCode.NO_INPUT if failed >= total else ExitCode.SOME_FAILED)
