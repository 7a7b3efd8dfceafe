"""A file that has its name only when it is complete, and is written by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import AccessError
from speechemo_cli.files import access_error, display_name, open_locked, refuse_devices, require_writable

if TYPE_CHECKING:
    from typing import TextIO


class PartialFile:
    """`FILE.partial`, which becomes FILE in the end.

    Attributes
    ----------
    shown : Path
        FILE as it was named.
    path : Path
        Where that is; a link stays, and what it points to is replaced.
    partial : Path
    kept : Path
        `FILE.partial~`, for what was in `FILE.partial` before.

    Raises
    ------
    AccessError
        Its folder cannot be written, or it is a device or a pipe.
    """

    def __init__(self, path: Path) -> None:
        self.shown, self.path = path, Path(os.path.realpath(path))
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self.kept = self.path.with_name(f"{self.path.name}.partial~")
        self._handle: TextIO | None = None
        require_writable(self.shown.parent)
        try:
            refuse_devices(self.path)
        except OSError as error:
            raise access_error("write", self.shown, error) from error

    def open(self) -> None:
        """Open `FILE.partial` as it is, for this process alone; the system ends that with the process.

        Raises
        ------
        AccessError
            It cannot be opened, is no file, or another process has it.
        """
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
        """Throw away what was in it.

        Raises
        ------
        AccessError
        """
        assert self._handle is not None
        try:
            self._handle.truncate(0)
        except OSError as error:
            raise access_error("write", self.shown, error) from error

    def write(self, text: str) -> None:
        """Add to it, now: a kill loses nothing that was written.

        Raises
        ------
        AccessError
            The disk is full.
        """
        assert self._handle is not None
        try:
            self._handle.write(text)
            self._handle.flush()
        except OSError as error:
            raise access_error("write", self.shown, error) from error

    def finish(self) -> None:
        """Give it its name.

        Raises
        ------
        AccessError
            It cannot be; what was written is still in `FILE.partial`.
        """
        assert self._handle is not None
        try:
            os.fsync(self._handle.fileno())
            self.partial.replace(self.path)  # before another process may have what is under this name
            self._handle.close()
            self.kept.unlink(missing_ok=True)
        except OSError as error:
            raise access_error("write", self.shown, error) from error

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
