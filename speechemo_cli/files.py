"""The one place that writes files: complete or not at all. Also hashes and names for display."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

# The names this module gives while it writes: for which target, by which process, when.
_TEMP = re.compile(r"\.speechemo-[0-9a-f]{12}\.\d+\.\d+\.tmp(\..*)?", re.DOTALL)
# A temporary file this old belongs to a process that was killed, not to one that is still writing.
_STALE_AFTER_S = 3600.0


@contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `target`; when the block ends well, it becomes `target`.

    The temporary name keeps the suffix of `target`, because Keras and matplotlib choose the format
    by it. A block that raises leaves `target` as it was and no temporary file behind; what a killed
    process left goes when another one writes to the same folder, an hour later or more.

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
        The folder cannot be made or written, the disk is full, or `target` is a device or a pipe.
    """
    shown, target = target, Path(os.path.realpath(target))
    temp = target.with_name(f"{_temp_stem(target)}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(target.parent)
        refuse_devices(target)
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


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give the path of a folder to make beside `target`; when the block ends well, it becomes `target`.

    No system renames a folder over one with something in it, so an old one steps aside for a moment.
    Where a process is killed in that moment, the next one that writes `target` brings it back.

    Raises
    ------
    AccessError
        It cannot be written; what was there is as it was.
    """
    shown, target = target, Path(os.path.realpath(target))
    stem = _temp_stem(target)
    temp, aside = target.with_name(f"{stem}.tmp"), target.with_name(f"{stem}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(target.parent)
        for old in target.parent.glob(f"{_temp_begin(target)}*.old"):
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(target)
        yield temp
        for path in temp.rglob("*"):
            if path.is_file():
                with path.open("rb+") as handle:
                    os.fsync(handle.fileno())
        try:
            if target.exists():
                target.rename(aside)
            temp.rename(target)
        except BaseException:
            if aside.exists() and not target.exists():
                aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise access_error("write", shown, error) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def refuse_devices(target: Path) -> None:
    """Refuse to replace a device or a pipe: it would take /dev/null away from the whole system.

    Raises
    ------
    OSError
        `target` is one.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file")


def _temp_begin(target: Path) -> str:
    # Short, and no pattern, whatever the name of `target` is.
    return f".speechemo-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}."


def _temp_stem(target: Path) -> str:
    return f"{_temp_begin(target)}{os.getpid()}.{time.monotonic_ns()}"


_swept: set[Path] = set()


def _sweep_once(folder: Path) -> None:
    """Sweep a folder this process has not swept yet: a run may write a hundred thousand files to it."""
    if folder not in _swept:
        _swept.add(folder)
        remove_stale(folder)


def remove_stale(folder: Path) -> None:
    """Remove what killed processes left half written in a folder, where it is an hour old and may go."""
    try:
        with os.scandir(folder) as listing:
            left = [entry for entry in listing if _TEMP.fullmatch(entry.name)]
    except OSError:
        return
    for entry in left:
        try:
            if time.time() - entry.stat(follow_symlinks=False).st_mtime <= _STALE_AFTER_S:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
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


def require_writable(folder: Path, n_bytes: int = 0) -> None:
    """Fail now, not after an hour of work, if `folder` does not take so much.

    Raises
    ------
    AccessError
        The folder cannot be made, a file cannot be made in it, or there is no room for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(n_bytes))
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


def open_locked(path: Path) -> int:
    """Open a regular file to write, made where it is missing, for this process alone until it ends.

    Neither through a link nor waiting for a pipe's other end: anybody may have put it there. Where the
    system or the disk has no locks, it is opened without one.

    Returns
    -------
    int
        The descriptor.

    Raises
    ------
    BlockingIOError
        Another process has it.
    OSError
        It cannot be opened or is no regular file.
    """
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except (ImportError, OSError):
            pass
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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


_scratch: tempfile.TemporaryDirectory[str] | None = None
_making_scratch = threading.Lock()


def scratch_folder() -> Path:
    """Return a private folder for what libraries insist on writing; it goes when the process does.

    A process that is killed (`kill -9`) leaves it in the temporary folder of the system.
    """
    global _scratch
    with _making_scratch:
        if _scratch is None:
            _scratch = tempfile.TemporaryDirectory(prefix="speechemo-", ignore_cleanup_errors=True)
    return Path(_scratch.name)


def drop_scratch() -> None:
    """Remove the private folder now."""
    if _scratch is not None:
        _scratch.cleanup()
