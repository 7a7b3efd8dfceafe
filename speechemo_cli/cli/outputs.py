"""Where answers go: stdout, a file, or a folder in the inputs' tree; and what an earlier run left there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.cli import protected, render
from speechemo_cli.cli.answers import WRITERS
from speechemo_cli.cli.earlier import lines_of, read_back
from speechemo_cli.cli.partial import PartialFile
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import atomic_path, display_name, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from speechemo_cli.cli.answers import Writer
    from speechemo_cli.cli.inputs import Input
    from speechemo_cli.inference.predictor import Answer, Refusal
    from speechemo_cli.inference.results import Style

    Writers = Mapping[str, type[Writer]]

SUFFIXES = {f".{name}": name for name in ("json", "jsonl", "csv", "srt", "rttm")}
_ENDINGS = {"label": ".txt", "table": ".txt", "audacity": ".txt"}
# What `-o` may say for stdout.
_STDOUT = ("-", "/dev/stdout")
# The longest name that Linux, macOS and Windows give a file.
_NAME_BYTES = 255


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
    protect : iterable of path-like
        Files that are not to be written over.

    Raises
    ------
    AccessError
        It cannot be written, another process is writing it, or what is there cannot be read.
    ConfigError
        It is one of the files to protect.
    """

    def __init__(
        self,
        path: Path,
        format_: str,
        style: Style,
        *,
        resume: bool,
        writers: Writers = WRITERS,
        protect: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self._file = PartialFile(path)
        self._protect(protect)
        self._file.open()
        self._known = self._take_up(format_, style) if resume else {}
        self._file.empty()
        self._writer = writers[format_](style, self._file.write)

    def expect(self, clip: Input) -> None:  # noqa: D102
        self._protect([clip.path])

    def put(self, _clip: Input, items: Iterable[Answer | Refusal]) -> None:  # noqa: D102
        for item in items:
            self._writer.write(item)

    def close(self) -> None:
        """Give the file its name."""
        self._writer.close()
        self._file.finish()

    def known(self, path: str) -> Mapping[str, list[Answer]]:  # noqa: D102
        return self._known.get(path, {})

    def __exit__(self, *_: object) -> None:
        self._file.release()

    def _protect(self, files: Iterable[str | os.PathLike[str]]) -> None:
        protected.protect({"--output": (self._file.shown, self._file.partial, self._file.kept)}, files)

    def _take_up(self, format_: str, style: Style) -> dict[str, dict[str, list[Answer]]]:
        """Read what runs before had answered, and keep it while this one writes over `FILE.partial`."""
        file = self._file
        lines = [
            line
            for place in (file.path, file.kept, file.partial)
            if place.is_file()
            for line in lines_of(place)
        ]
        if file.partial.stat().st_size:
            with atomic_path(file.kept) as temp:
                temp.write_bytes(os.fsencode("".join(lines)))
        return read_back(lines, format_, style)


class ToFolder(Sink):
    """The answers of each clip go to a file of their own, in the tree of the inputs.

    Parameters
    ----------
    root : Path
    format_ : str
    style : Style
    resume : bool
        Take up what the files of a clip hold.
    protect : iterable of path-like
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
        protect: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        require_writable(root)
        self._protected = protected.identities(protect)
        self._root, self._format, self._style, self._resume = root, format_, style, resume
        self._new_writer = writers[format_]
        self._taken: dict[Path, str] = {}
        self._target: dict[str, Path] = {}

    def expect(self, clip: Input) -> None:
        """Decide where the answers of a clip go.

        Raises
        ------
        ConfigError
            Those of another clip go there, or it is a file to protect.
        """
        target = self._file(clip)
        for files in (self._protected, protected.identities([clip.path])):
            protected.refuse("--output", protected.identities([target]), files)
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
        return read_back(lines_of(target), self._format, self._style).get(path, {})

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
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Sink:
    """Return where answers go: stdout without `output`, else a file or a folder.

    Parameters
    ----------
    output : str or None
    format_ : str
    style : Style
    resume : bool
    writers : mapping of str to type
    protect : iterable of path-like
        Files that answers must not be written over, besides the clips.

    Raises
    ------
    AccessError
        It cannot be written, another process is writing it, or what is there to resume cannot be read.
    ConfigError
        It is one of the files to protect.
    """
    if output is None:
        return ToStdout(format_, style, writers)
    kind = ToFolder if is_folder(output) else ToFile
    return kind(Path(output), format_, style, resume=resume, writers=writers, protect=protect)


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
