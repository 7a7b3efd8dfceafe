"""The one place that writes files: complete or not at all. Also hashes and names for display."""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

_TEMP_MARK = ".tmp"
# A temporary file this old belongs to a process that was killed, not to one that is still writing.
_STALE_AFTER_S = 3600.0


@contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `target`; when the block ends well, it becomes `target`.

    The temporary name keeps the suffix of `target`, because Keras and matplotlib choose the format
    by it. A block that raises leaves `target` as it was and no temporary file behind.

    Parameters
    ----------
    target : Path
        The file to make or replace. A symbolic link is followed: the file it points to is replaced.
    durable : bool
        Wait until the content is on the disk before the name appears. What can be computed again
        (the store) goes without, which saves milliseconds a file.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    AccessError
        The folder cannot be made or written, or the disk is full.
    """
    shown, target = target, Path(os.path.realpath(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
    except OSError as error:
        raise access_error("write", shown, error) from error
    temp = target.with_name(
        f"{_temp_stem(target)}{os.getpid()}.{time.monotonic_ns()}{_TEMP_MARK}{target.suffix}"
    )
    try:
        yield temp
        if durable:
            with temp.open("rb+") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            shutil.copymode(target, temp)
        temp.replace(target)
    except OSError as error:
        raise access_error("write", shown, error) from error
    finally:
        try:
            temp.unlink(missing_ok=True)
        except OSError:
            pass  # what went wrong has been said already


def _temp_stem(target: Path) -> str:
    """Begin the names of temporary files for `target`: short, and no pattern, whatever its name is."""
    return f".speechemo-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}."


def _sweep(target: Path) -> None:
    """Remove what killed writers of `target` left behind."""
    for left in target.parent.glob(f"{_temp_stem(target)}*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_AFTER_S:
                left.unlink()
        except OSError:
            pass  # another process was faster


def access_error(verb: str, path: Path | str, error: OSError) -> AccessError:
    """Turn an OSError into one line that names the file, the reason and the remedy."""
    reason = (error.strerror or str(error)).lower()
    hint = {
        "permission denied": "Choose another folder or change its permissions",
        "no space left on device": "Free some space and run it again: what was there before is intact",
        "file too large": "Raise the file size limit (ulimit -f): what was there before is intact",
    }.get(reason, "")
    return AccessError(f"cannot {verb} {display_name(path)}: {reason}", hint)


def require_writable(folder: Path) -> None:
    """Fail now, not after an hour of work, if nothing can be written to `folder`.

    Raises
    ------
    AccessError
        The folder cannot be made, or a file cannot be made in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise access_error("write to", folder, error) from error


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open a file for reading that somebody named, if it is a regular file.

    A FIFO that nobody writes to would block for ever, and a device may never end.

    Raises
    ------
    IsADirectoryError
        It is a folder.
    OSError
        It is no regular file, does not exist, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        with os.fdopen(descriptor, "rb", closefd=False) as handle:
            yield handle
    finally:
        os.close(descriptor)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a regular file's content as 64 hexadecimal digits.

    Raises
    ------
    OSError
        As `open_regular`.
    """
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def display_name(path: str | os.PathLike[str]) -> str:
    """Show a file name on one line of any terminal, whatever bytes it holds.

    Control characters and bytes that are no UTF-8 are written as escapes; the rest stays as it is.
    """
    name = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


_scratch: Path | None = None


def scratch_folder() -> Path:
    """Return a private folder for what libraries insist on writing; it goes when the process does."""
    global _scratch
    if _scratch is None:
        _scratch = Path(tempfile.mkdtemp(prefix="speechemo-"))
        atexit.register(drop_scratch)
    return _scratch


def drop_scratch() -> None:
    """Remove the private folder now."""
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
