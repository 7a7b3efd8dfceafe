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

    The temporary name keeps the suffix of `target`, because Keras and matplotlib choose the format by it.
    A symbolic link is followed. A block that raises leaves `target` as it was and no temporary file behind;
    what a killed process left goes when another one writes to the same folder, an hour later or more.
    `durable` waits until the content is on the disk before the name appears: what can be computed again (the
    store) goes without, which saves milliseconds a file. An AccessError says that the folder cannot be made
    or written, the disk is full, or `target` is a device or a pipe.
    """
    with _beside(target, target.suffix) as (target, temp):
        refuse_devices(target)
        yield temp
        if durable:
            _flush(temp)
        if target.exists():
            shutil.copymode(target, temp)
        temp.replace(target)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give the path of a folder to make beside `target`; when the block ends well, it becomes `target`.

    No system renames a folder over one with something in it, so an old one steps aside for a moment.
    Where a process is killed in that moment, the next one that writes `target` brings it back.
    An AccessError says that it cannot be written; what was there is as it was.
    """
    with _beside(target) as (target, temp):
        for old in target.parent.glob(f"{_temp_begin(target)}*.old"):
            if target.exists():
                _remove(old)
            else:
                old.rename(target)
        yield temp
        for path in temp.rglob("*"):
            if path.is_file():
                _flush(path)
        aside = temp.with_suffix(".old")
        try:
            if target.exists():
                target.rename(aside)
            temp.rename(target)
        except BaseException:
            if aside.exists() and not target.exists():
                aside.rename(target)
            raise
        _remove(aside)


@contextmanager
def _beside(target: Path, suffix: str = "") -> Iterator[tuple[Path, Path]]:
    """Give what `target` leads to, and a temporary path beside it, of which nothing is left at the end."""
    real = Path(os.path.realpath(target))
    temp = real.with_name(f"{_temp_begin(real)}{os.getpid()}.{time.monotonic_ns()}.tmp{suffix}")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        if real.parent not in _swept:  # once: a run may write a hundred thousand files to it
            _swept.add(real.parent)
            remove_stale(real.parent)
        yield real, temp
    except OSError as error:
        raise access_error("write", target, error) from error
    finally:
        _remove(temp)


_swept: set[Path] = set()


def _temp_begin(target: Path) -> str:
    # Short, and no pattern, whatever the name of `target` is.
    return f".speechemo-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}."


def _flush(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # it is another's, or another process was faster


def refuse_devices(target: Path) -> None:
    """Raise OSError where `target` is a device or a pipe: every program needs /dev/null as it is."""
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file")


def remove_stale(folder: Path) -> None:
    """Remove what killed processes left half written in a folder, where it is an hour old and may go."""
    try:
        with os.scandir(folder) as listing:
            left = [entry for entry in listing if _TEMP.fullmatch(entry.name)]
    except OSError:
        return
    for entry in left:
        try:
            age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
        except OSError:
            continue  # another process was faster
        if age_s > _STALE_AFTER_S:
            _remove(Path(entry.path))


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
    """Make a folder, and raise AccessError now, not after an hour of work, if it does not take so much."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(n_bytes))
    except OSError as error:
        raise access_error("write to", folder, error) from error


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open a file for reading that somebody named; an OSError, IsADirectoryError for a folder, says why not.

    Only a regular file: a FIFO that nobody writes to would block for ever, and a device may never end.
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

    Returns the descriptor. Neither through a link nor waiting for a pipe's other end: anybody may have put it
    there. Where the system or the disk has no locks, it is opened without one. BlockingIOError says that
    another process has it, OSError that it cannot be opened or is no regular file.
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
    """SHA-256 of a regular file's content as 64 hexadecimal digits; an OSError as `open_regular` has it."""
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
