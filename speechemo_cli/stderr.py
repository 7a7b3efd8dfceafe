"""Keep what C and C++ libraries write to stderr from the person, and what the program writes there."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

from speechemo_cli.errors import SpeechemoError

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = 2


class _Held:
    """A descriptor whose output is held back as long as somebody wants it so; threads may overlap."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._holders = 0
        self._kept = -1
        self._file: IO[bytes] | None = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold its output back during the block; show it if the block breaks.

        An error of this package does not show it: it has said in one line what there is to say.
        """
        start = self._begin()
        try:
            yield
        except BaseException as error:
            self._end(None if isinstance(error, KeyboardInterrupt | SpeechemoError) else start)
            raise
        self._end(None)

    def _begin(self) -> int:
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - until the last one ends
                self._kept = os.dup(self._descriptor)
                os.dup2(self._file.fileno(), self._descriptor)
            self._holders += 1
            return self._file.seek(0, os.SEEK_END)

    def _end(self, show_from: int | None) -> None:
        with self._lock:
            assert self._file is not None
            if show_from is not None:
                self._file.seek(show_from)
                os.write(self._kept, self._file.read())
            self._holders -= 1
            if not self._holders:
                os.dup2(self._kept, self._descriptor)
                os.close(self._kept)
                self._file.close()
                self._file = None

    def take_back(self) -> None:
        """Let its output through again, whoever holds it and will not end."""
        if self._file is not None:
            os.dup2(self._kept, self._descriptor)


_libraries = _Held(_STDERR)
_program: _Held | None = None


def separate() -> None:
    """Give `sys.stderr` a descriptor of its own, so that what libraries write can be told from it.

    Meant for a process that is the program's alone, not for one that imports this package.
    """
    global _program
    stream = sys.stderr
    try:
        if stream.fileno() != _STDERR:
            return
        descriptor = os.dup(_STDERR)
    except (OSError, ValueError, AttributeError):  # closed, or replaced by something that is no file
        return
    stream.flush()
    sys.stderr = os.fdopen(descriptor, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
    sys.__stderr__ = sys.stderr  # type: ignore[misc]
    _program = _Held(descriptor)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back whatever is written to stderr; show it only if the block breaks.

    TensorFlow's C++ code writes there before any log level is read ("oneDNN custom operations are
    on", "Could not find cuda drivers"), so neither a logger nor `sys.stderr` can stop it.
    """
    if not _is_open():  # there is nobody to disturb
        yield
        return
    with ExitStack() as stack:
        sys.stderr.flush()
        for held in filter(None, (_libraries, _program)):
            stack.enter_context(held.hold())
        try:
            yield
        finally:
            sys.stderr.flush()


def take_back() -> None:
    """Write to stderr as at the beginning, where a block that holds it back is not going to be ended."""
    for held in filter(None, (_libraries, _program)):
        held.take_back()


def _is_open() -> bool:
    try:
        os.fstat(_STDERR)
    except OSError:
        return False
    return True
