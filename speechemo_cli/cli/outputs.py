"""Where answers go: stdout, a file, or a folder in the inputs' tree; and what an earlier run left there."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import render
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import access_error, atomic_path, display_name, refuse_devices, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from speechemo_cli.cli.answers import Style, Writer
    from speechemo_cli.cli.inputs import Input
    from speechemo_cli.inference.predictor import Answer, Refusal

    Writers = Mapping[str, type[Writer]]

SUFFIXES = {f".{name}": name for name in ("json", "jsonl", "csv", "srt", "rttm")}
_ENDINGS = {"label": ".txt", "table": ".txt", "audacity": ".txt"}
RESUMABLE = ("jsonl", "csv")


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

    Raises
    ------
    AccessError
        It cannot be written, or what is there cannot be read.
    """

    def __init__(
        self, path: Path, format_: str, style: Style, *, resume: bool, writers: Writers = WRITERS
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
        if resume:
            places = [place for place in (path, self._kept, self._partial) if place.is_file()]
            lines = [line for place in places for line in _lines(place)]
            if self._partial in places:
                with atomic_path(self._kept) as temp:
                    temp.write_bytes(os.fsencode("".join(lines)))
            self._known = read_back(lines, format_, style.key)
        try:
            self._handle = self._partial.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise access_error("write", self._shown, error) from error
        self._writer = writers[format_](style, self._write)

    def put(self, _clip: Input, items: Iterable[Answer | Refusal]) -> None:  # noqa: D102
        for item in items:
            self._writer.write(item)

    def close(self) -> None:
        """Give the file its name."""
        self._writer.close()
        try:
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._partial.replace(self._path)
            self._kept.unlink(missing_ok=True)
        except OSError as error:
            raise access_error("write", self._shown, error) from error

    def known(self, path: str) -> Mapping[str, list[Answer]]:  # noqa: D102
        return self._known.get(path, {})

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

    Raises
    ------
    AccessError
        The folder cannot be written.
    """

    def __init__(
        self, root: Path, format_: str, style: Style, *, resume: bool, writers: Writers = WRITERS
    ) -> None:
        require_writable(root)
        self._root, self._format, self._style, self._resume = root, format_, style, resume
        self._new_writer = writers[format_]
        self._taken: dict[Path, str] = {}
        self._target: dict[str, Path] = {}

    def expect(self, clip: Input) -> None:
        """Decide where the answers of a clip go.

        Raises
        ------
        ConfigError
            Those of another clip go there.
        """
        target = self._file(clip)
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
        if not self._resume or target is None or not target.is_file():
            return {}
        return read_back(_lines(target), self._format, self._style.key).get(path, {})

    def _file(self, clip: Input) -> Path:
        return self._root / f"{clip.below}{ending(self._format)}"


def sink(output: str | None, format_: str, style: Style, *, resume: bool, writers: Writers = WRITERS) -> Sink:
    """Return where answers go: stdout without `output`, else a file or a folder.

    Raises
    ------
    AccessError
        It cannot be written, or what is there to resume cannot be read.
    """
    if output is None:
        return ToStdout(format_, style, writers)
    kind = ToFolder if is_folder(output) else ToFile
    return kind(Path(output), format_, style, resume=resume, writers=writers)


def ending(format_: str) -> str:
    """Return the suffix of files in a format."""
    return _ENDINGS.get(format_, f".{format_}")


def is_folder(output: str) -> bool:
    """Whether `-o` names a folder: there is one, or the name has no suffix, or ends in a slash."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir() or not Path(output).suffix


def read_back(lines: Iterable[str], format_: str, key: str) -> dict[str, dict[str, list[Answer]]]:
    """Take the answers with this key out of what was written, by path and SHA-256.

    Parameters
    ----------
    lines : iterable of str
    format_ : str
        One of `RESUMABLE`.
    key : str
        Answers of another model, or with other options, are left alone.

    Returns
    -------
    dict of str to dict of str to list of Answer
        The last answer of each channel.
    """
    found: dict[str, dict[str, list[Answer]]] = {}
    for record in _records(lines, format_):
        if record.get("status") != "ok" or record.get("key") != key:
            continue
        try:
            answer = _answer(record)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue  # not a record of ours
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
        except ValueError:
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
