"""A file that has its name only when it is complete, and is written by one process at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import AccessError
from speechemo_cli.files import access_error, display_name, open_locked, refuse_devices, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


class PartialFile:
    """`FILE.partial`, which becomes FILE in the end. Its methods raise AccessError.

    Attributes
    ----------
    shown : Path
        FILE as it was named.
    path : Path
        Where that is; a link stays, and what it points to is replaced.
    partial : Path
    kept : Path
        `FILE.partial~`, for what was in `FILE.partial` before.
    """

    def __init__(self, path: Path) -> None:
        self.shown, self.path = path, Path(os.path.realpath(path))
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self.kept = self.path.with_name(f"{self.path.name}.partial~")
        self._handle: TextIO | None = None
        require_writable(self.shown.parent)
        with self._writing():
            refuse_devices(self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise access_error("write", self.shown, error) from error

    def open(self) -> None:
        """Open `FILE.partial` as it is, for this process alone; the system ends that with the process."""
        try:
            while self._handle is None:
                descriptor = open_locked(self.partial)
                handle = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="")
                if _is_named(descriptor, self.partial):
                    self._handle = handle
                else:
                    handle.close()  # its writer has just given it its name
        except BlockingIOError:
            raise AccessError(
                f"{display_name(self.shown)} is being written by another speechemo",
                "Wait for it, or give another --output",
            ) from None
        except OSError as error:
            raise access_error("write", self.partial, error) from error

    def empty(self) -> None:
        """Throw away what was in it."""
        assert self._handle is not None
        with self._writing():
            self._handle.truncate(0)

    def write(self, text: str) -> None:
        """Add to it, now: a kill loses nothing that was written."""
        assert self._handle is not None
        with self._writing():
            self._handle.write(text)
            self._handle.flush()

    def finish(self) -> None:
        """Give it its name. Where that fails, what was written is still in `FILE.partial`."""
        assert self._handle is not None
        with self._writing():
            os.fsync(self._handle.fileno())
            self.partial.replace(self.path)  # before another process may have what is under this name
            self._handle.close()
            self.kept.unlink(missing_ok=True)

    def release(self) -> None:
        """Let other processes have it, complete or not; one that is empty goes."""
        if self._handle is not None and not self._handle.closed:
            try:
                if not os.fstat(self._handle.fileno()).st_size:
                    self.partial.unlink()
                self._handle.close()
            except OSError:
                pass  # what went wrong has been said already


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
