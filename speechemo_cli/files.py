"""The one place that writes files: complete or not at all. Also hashes and names for display."""

from __future__ import annotations

import atexit
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
    from collections.abc import Collection, Iterator
    from io import BufferedReader

# The names this module gives while it writes: for which target, by which process, when.
_TEMP = re.compile(r"\.speechemo-[0-9a-f]{12}\.(\d+)\.\d+\.tmp(\..*)?", re.DOTALL)
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

    Parameters
    ----------
    target : Path

    Yields
    ------
    Path

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
    """Begin the names of temporary files for `target`: short, and no pattern, whatever its name is."""
    return f".speechemo-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}."


def _temp_stem(target: Path) -> str:
    return f"{_temp_begin(target)}{os.getpid()}.{time.monotonic_ns()}"


_swept: set[Path] = set()


def _sweep_once(folder: Path) -> None:
    """Sweep a folder this process has not swept yet: a run may write a hundred thousand files to it."""
    if folder not in _swept:
        _swept.add(folder)
        remove_stale(folder)


def remove_stale(folder: Path, dead: Collection[int] = ()) -> None:
    """Remove what killed processes left half written in a folder, where it is an hour old and may go.

    Parameters
    ----------
    folder : Path
    dead : collection of int
        Processes that are known to have ended: what they left goes at once.
    """
    try:
        with os.scandir(folder) as listing:
            left = [(entry, match) for entry in listing if (match := _TEMP.fullmatch(entry.name))]
    except OSError:
        return
    for entry, match in left:
        try:
            age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if age_s <= _STALE_AFTER_S and int(match[1]) not in dead:
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


def open_locked(path: Path, flags: int, mode: int = 0o600, *, required: bool = True) -> int:
    """Open a regular file for this process alone, until it is closed or the process ends, however it ends.

    Parameters
    ----------
    path : Path
        Not through a link, and not waiting for a pipe's other end: anybody may have put it there.
    flags, mode : int
        As of `os.open`.
    required : bool
        Whether it is an error that this system, or the disk, has no locks.

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
    ImportError
        There are no locks here.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, mode)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, OSError) as error:
            if required or isinstance(error, BlockingIOError):
                raise
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


_scratch: Path | None = None
_making_scratch = threading.Lock()
# As tempfile names a folder with such a prefix. Under the first name it is being made; it gets the second one
# when its lock is held, and whoever finds that name without a holder of the lock may remove it.
_NEW_SCRATCH = "speechemo-new-"
_SCRATCH = "speechemo-"
_RANDOM = "[a-z0-9_]{8}"
# No other program calls a file so. The number is for the day when what may be removed changes.
_SCRATCH_LOCK = "speechemo-scratch-1.lock"


def scratch_folder() -> Path:
    """Return a private folder for what libraries insist on writing; it goes when the process does.

    One that was killed leaves its folder to the next, which sees that nobody holds its lock any more.
    """
    global _scratch
    with _making_scratch:
        if _scratch is None:
            _sweep_scratch()
            _scratch = _make_scratch()
            atexit.register(drop_scratch)
        return _scratch


def drop_scratch() -> None:
    """Remove the private folder now."""
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)


def _make_scratch() -> Path:
    new = Path(tempfile.mkdtemp(prefix=_NEW_SCRATCH))
    try:
        try:
            open_locked(new / _SCRATCH_LOCK, os.O_RDWR | os.O_CREAT)
        except (ImportError, OSError):
            (new / _SCRATCH_LOCK).unlink(missing_ok=True)  # no locks here: nobody shall sweep it
        return new.rename(new.with_name(f"{_SCRATCH}{new.name.removeprefix(_NEW_SCRATCH)}"))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _sweep_scratch() -> None:
    """Remove the folders that killed processes left, and nothing that only looks like one."""
    if not hasattr(os, "getuid"):
        return  # nor are there locks to tell by
    try:
        with os.scandir(tempfile.gettempdir()) as listing:
            folders = [Path(entry.path) for entry in listing if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for folder in folders:
        try:
            if re.fullmatch(f"{_SCRATCH}{_RANDOM}", folder.name):
                _remove_unlocked(folder)
            elif re.fullmatch(f"{_NEW_SCRATCH}{_RANDOM}", folder.name):
                _remove_unfinished(folder)
        except (ImportError, OSError):
            pass  # in use, or somebody else's


def _remove_unlocked(folder: Path) -> None:
    if folder.lstat().st_uid == os.getuid():
        held = open_locked(folder / _SCRATCH_LOCK, os.O_RDWR)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_unfinished(folder: Path) -> None:
    """Remove what is left where a process was killed before its folder got its second name."""
    status, inside = folder.lstat(), list(folder.iterdir())
    is_old = time.time() - status.st_mtime > _STALE_AFTER_S
    if is_old and status.st_uid == os.getuid() and {path.name for path in inside} <= {_SCRATCH_LOCK}:
        for path in inside:
            path.unlink()
        folder.rmdir()
