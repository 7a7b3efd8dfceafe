"""Where answers go: stdout, a file, or a folder in the inputs' tree; and what an earlier run left there."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from speechemo_cli.cli import render
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.errors import AccessError, ConfigError
from speechemo_cli.files import access_error, atomic_path, display_name, refuse_devices, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from speechemo_cli.cli.answers import Style, Writer
    from speechemo_cli.cli.inputs import Input
    from speechemo_cli.inference.predictor import Answer, Refusal

    Writers = Mapping[str, type[Writer]]

SUFFIXES = {f".{name}": name for name in ("json", "jsonl", "csv", "srt", "rttm")}
_ENDINGS = {"label": ".txt", "table": ".txt", "audacity": ".txt"}
RESUMABLE = ("jsonl", "csv")
# What `-o` may say for stdout.
_STDOUT = ("-", "/dev/stdout")
# The longest name that Linux, macOS and Windows give a file.
_NAME_BYTES = 255
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Sink:
    """Takes the answers of one clip after the other."""

    def expect(self, clip: Input) -> None:
        """Hear of a clip before it is listened to."""

    def put(self, clip: Input, items: Iterable[Answer | Refusal]) -> None:
        """Write the answers of a clip."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what belongs after the last clip."""

    def known(self, _path: str, /) -> Mapping[str, list[Answer]]:
        """Return what an earlier run answered for a clip, by the SHA-256 of its content."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write to the same place; what has no name by now gets none."""


class ToStdout(Sink):
    """Answers go to stdout, at once."""

    def __init__(self, format_: str, style: Style, writers: Writers = WRITERS) -> None:
        self._writer = writers[format_](style, render.write)

    def put(self, _clip: Input, items: Iterable[Answer | Refusal]) -> None:  # noqa: D102
        for item in items:
            self._writer.write(item)

    def close(self) -> None:  # noqa: D102
        self._writer.close()


class ToFile(Sink):
    """Answers go to a file that has its name only when it is complete; until then it is `FILE.partial`.

    Parameters
    ----------
    path : Path
    format_ : str
    style : Style
    resume : bool
        Take up what `path` and runs that were broken off hold.
    spare : iterable of path-like
        Files that are not to be written over.

    Raises
    ------
    AccessError
        It cannot be written, another process is writing it, or what is there cannot be read.
    ConfigError
        It is one of the files to spare.
    """

    def __init__(
        self,
        path: Path,
        format_: str,
        style: Style,
        *,
        resume: bool,
        writers: Writers = WRITERS,
        spare: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        # A link stays, and what it points to is replaced.
        self._shown, path = path, Path(os.path.realpath(path))
        require_writable(self._shown.parent)
        try:
            refuse_devices(path)
        except OSError as error:
            raise access_error("write", self._shown, error) from error
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        # What the runs before had answered, while this one writes over `FILE.partial`.
        self._kept = path.with_name(f"{path.name}.partial~")
        self._known: dict[str, dict[str, list[Answer]]] = {}
        self._spare(spare)
        self._handle = self._open_alone()
        if resume:
            places = [place for place in (path, self._kept, self._partial) if place.is_file()]
            lines = [line for place in places for line in _lines(place)]
            if self._partial in places:
                with atomic_path(self._kept) as temp:
                    temp.write_bytes(os.fsencode("".join(lines)))
            self._known = read_back(lines, format_, style)
        try:
            self._handle.truncate(0)
        except OSError as error:
            raise access_error("write", self._shown, error) from error
        self._writer = writers[format_](style, self._write)

    def expect(self, clip: Input) -> None:  # noqa: D102
        self._spare([clip.path])

    def put(self, _clip: Input, items: Iterable[Answer | Refusal]) -> None:  # noqa: D102
        for item in items:
            self._writer.write(item)

    def close(self) -> None:
        """Give the file its name."""
        self._writer.close()
        try:
            os.fsync(self._handle.fileno())
            self._partial.replace(self._path)  # before another process may have what is under this name
            self._handle.close()
            self._kept.unlink(missing_ok=True)
        except OSError as error:
            raise access_error("write", self._shown, error) from error

    def known(self, path: str) -> Mapping[str, list[Answer]]:  # noqa: D102
        return self._known.get(path, {})

    def __exit__(self, *_: object) -> None:
        try:
            self._handle.close()
        except OSError:
            pass  # what went wrong has been said already

    def _spare(self, files: Iterable[str | os.PathLike[str]]) -> None:
        for file in files:
            _refuse_to_replace(file, self._shown, self._path, self._partial, self._kept)

    def _open_alone(self) -> TextIO:
        """Open `FILE.partial` as it is, for this process alone; the system ends that with the process."""
        try:
            while True:
                # Neither through a link nor waiting for a pipe's other end: anybody may have put it there.
                flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
                descriptor = os.open(self._partial, flags, 0o666)
                handle = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="")
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                _lock(descriptor)
                if _is_named(descriptor, self._partial):
                    return handle
                handle.close()  # its writer has just given it its name
        except BlockingIOError:
            raise AccessError(
                f"{display_name(self._shown)} is being written by another speechemo",
                "Wait for it, or give another --output",
            ) from None
        except OSError as error:
            raise access_error("write", self._partial, error) from error

    def _write(self, text: str) -> None:
        try:
            self._handle.write(text)
            self._handle.flush()  # a kill loses nothing that was answered
        except OSError as error:
            raise access_error("write", self._shown, error) from error


class ToFolder(Sink):
    """The answers of each clip go to a file of their own, in the tree of the inputs.

    Parameters
    ----------
    root : Path
    format_ : str
    style : Style
    resume : bool
        Take up what the files of a clip hold.
    spare : iterable of path-like
        Files that are not to be written over.

    Raises
    ------
    AccessError
        The folder cannot be written.
    """

    def __init__(
        self,
        root: Path,
        format_: str,
        style: Style,
        *,
        resume: bool,
        writers: Writers = WRITERS,
        spare: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        require_writable(root)
        self._spare = tuple(spare)
        self._root, self._format, self._style, self._resume = root, format_, style, resume
        self._new_writer = writers[format_]
        self._taken: dict[Path, str] = {}
        self._target: dict[str, Path] = {}

    def expect(self, clip: Input) -> None:
        """Decide where the answers of a clip go.

        Raises
        ------
        ConfigError
            Those of another clip go there, or it is a file to spare.
        """
        target = self._file(clip)
        if os.path.lexists(target):
            for file in (*self._spare, clip.path):
                _refuse_to_replace(file, target, target)
        before = self._taken.setdefault(target, clip.path)
        if before != clip.path:
            raise ConfigError(
                f"{display_name(before)} and {display_name(clip.path)} would both be answered in "
                f"{display_name(target)}",
                "Name the folder they are in instead of the files",
            )
        self._target[clip.path] = target

    def put(self, clip: Input, items: Iterable[Answer | Refusal]) -> None:  # noqa: D102
        parts: list[str] = []
        writer = self._new_writer(self._style, parts.append)
        for item in items:
            writer.write(item)
        writer.close()
        with atomic_path(self._file(clip), durable=False) as temp:
            temp.write_bytes("".join(parts).encode("utf-8", errors="surrogateescape"))

    def known(self, path: str) -> Mapping[str, list[Answer]]:  # noqa: D102
        target = self._target.get(path)
        if not self._resume or target is None or not os.path.isfile(target):
            return {}
        return read_back(_lines(target), self._format, self._style).get(path, {})

    def _file(self, clip: Input) -> Path:
        folder, name = os.path.split(clip.below)
        return self._root / folder / _fitting(name, ending(self._format))


def sink(
    output: str | None,
    format_: str,
    style: Style,
    *,
    resume: bool,
    writers: Writers = WRITERS,
    spare: Iterable[str | os.PathLike[str]] = (),
) -> Sink:
    """Return where answers go: stdout without `output`, else a file or a folder.

    Parameters
    ----------
    output : str or None
    format_ : str
    style : Style
    resume : bool
    writers : mapping of str to type
    spare : iterable of path-like
        Files that answers must not be written over, besides the clips.

    Raises
    ------
    AccessError
        It cannot be written, another process is writing it, or what is there to resume cannot be read.
    ConfigError
        It is one of the files to spare.
    """
    if output is None:
        return ToStdout(format_, style, writers)
    kind = ToFolder if is_folder(output) else ToFile
    return kind(Path(output), format_, style, resume=resume, writers=writers, spare=spare)


def named(output: str | None) -> str | None:
    """Take what `-o` says; None for stdout.

    Raises
    ------
    ConfigError
        It says nothing.
    """
    if output == "":
        raise ConfigError("--output is empty, expected a file or a folder", "Leave it out for stdout")
    return None if output in _STDOUT else output


def _refuse_to_replace(file: str | os.PathLike[str], shown: Path, *targets: Path) -> None:
    """Refuse to write over a file that is read here.

    Raises
    ------
    ConfigError
    """
    if any(_same_file(file, target) for target in targets):
        raise ConfigError(
            f"--output {display_name(shown)} would write over {display_name(file)}, which is used here",
            "Give another --output",
        )


def _lock(descriptor: int) -> None:
    """Take a file for this process alone, where the system can.

    Raises
    ------
    BlockingIOError
        Another process has it.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        pass


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _same_file(one: str | os.PathLike[str], other: Path) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False  # one is not there


def _fitting(name: str, suffix: str) -> str:
    """Add a suffix to a name; the end of one that gets too long becomes a hash of the whole."""
    content = os.fsencode(name)
    if len(content) + len(suffix) <= _NAME_BYTES:
        return f"{name}{suffix}"
    mark = f"~{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    return f"{content[: _NAME_BYTES - len(mark)].decode(errors='ignore')}{mark}"


def ending(format_: str) -> str:
    """Return the suffix of files in a format."""
    return _ENDINGS.get(format_, f".{format_}")


def is_folder(output: str) -> bool:
    """Whether `-o` names a folder: there is one, or the name has no suffix, or ends in a slash."""
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return True
    return not Path(output).suffix and not os.path.exists(output)


def read_back(lines: Iterable[str], format_: str, style: Style) -> dict[str, dict[str, list[Answer]]]:
    """Take the answers of this style out of what was written, by path and SHA-256.

    Parameters
    ----------
    lines : iterable of str
    format_ : str
        One of `RESUMABLE`.
    style : Style
        Answers with another key, of another model or with other options, are left alone; so is what
        cannot be an answer.

    Returns
    -------
    dict of str to dict of str to list of Answer
        The last answer of each channel.
    """
    found: dict[str, dict[str, list[Answer]]] = {}
    for record in _records(lines, format_):
        if record.get("status") != "ok" or record.get("key") != style.key:
            continue
        try:
            answer = _answer(record)
            possible = _is_possible(answer, style.labels)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            continue  # not a record of ours
        if not possible:
            continue
        group = found.setdefault(answer.path, {}).setdefault(answer.sha256, [])
        group[:] = [*(one for one in group if one.channel != answer.channel), answer]
    return found


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise access_error("read", path, error) from error
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def _records(lines: Iterable[str], format_: str) -> Iterator[Mapping[str, Any]]:
    if format_ == "csv":
        header: list[str] = []
        rows = csv.reader(lines)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                continue  # not a row of ours
            if row[:2] == ["path", "status"]:
                header = row
            elif len(row) == len(header):
                yield dict(zip(header, row, strict=True))
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _answer(record: Mapping[str, Any]) -> Answer:
    from speechemo_cli.inference.predictor import Answer

    fixed = ("path", "status", "label", "confidence", "duration_s", "warnings", "error", "channel")
    probabilities = record.get("probabilities") or {
        name: value for name, value in record.items() if name not in (*fixed, "sha256", "key") and value != ""
    }
    warnings = record["warnings"]
    return Answer(
        record["path"],
        record["label"],
        float(record["confidence"]),
        {label: float(p) for label, p in probabilities.items()},
        float(record["duration_s"]),
        tuple(filter(None, warnings.split("; ")) if isinstance(warnings, str) else warnings),
        record.get("channel") or None,
        record["sha256"],
    )


def _is_possible(answer: Answer, labels: tuple[str, ...]) -> bool:
    """Whether it is of the kind that is written here; anybody may have edited the file."""
    from speechemo_cli.inference.predictor import UNCERTAIN

    shares = (answer.confidence, *answer.probabilities.values())
    return (
        isinstance(answer.path, str)
        and answer.label in (*labels, UNCERTAIN)
        and set(answer.probabilities) <= set(labels)
        and all(0 <= share <= 1 for share in shares)
        and 0 <= answer.duration_s < math.inf
        and all(isinstance(warning, str) for warning in answer.warnings)
        and isinstance(answer.channel, str | None)
        and _SHA256.fullmatch(answer.sha256) is not None
    )
