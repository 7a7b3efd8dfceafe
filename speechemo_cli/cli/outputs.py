"""Where answers go: stdout, a file, or a folder in the inputs' tree; and what a previous run left there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli.cli import protected, terminal
from speechemo_cli.cli.answers import WRITERS, name
from speechemo_cli.cli.partial import PartialFile
from speechemo_cli.cli.resume import lines_of, load_previous, merge_previous
from speechemo_cli.errors import ClipError, ConfigError
from speechemo_cli.files import atomic_path, display_name, require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from enum import StrEnum
    from typing import Self

    from speechemo_cli.cli.answers import Writer
    from speechemo_cli.cli.inputs import Input
    from speechemo_cli.inference.predictor import Answer
    from speechemo_cli.inference.results import Style

    Writers = Mapping[str, type[Writer]]

# Formats that the suffix of an output chooses.
_BY_SUFFIX = ("json", "jsonl", "csv", "srt", "rttm")
_ENDINGS = {"label": ".txt", "table": ".txt", "audacity": ".txt"}
# What `-o` may say for stdout.
_STDOUT = ("-", "/dev/stdout")
# The longest name that Linux, macOS and Windows give a file.
_NAME_BYTES = 255


class Sink:
    """Takes the answers of one clip after the other.

    Attributes
    ----------
    failed, n : int
        How many records are errors, and how many there are.
    """

    failed = n = 0

    def reserve(self, clip: Input) -> None:
        """Take the place for the answers of a clip before it is read."""

    def write(self, clip: Input, items: Sequence[Any]) -> None:
        """Write the answers of a clip, and name what failed on stderr."""
        for item in items:
            if isinstance(item, ClipError):
                self.failed += 1
                terminal.warn(f"{name(item)}: {item.error}")
        self.n += len(items)
        self._write(clip, items)

    def _write(self, clip: Input, items: Sequence[Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Write what belongs after the last clip."""

    def previous(self, _clip: Input, /) -> Mapping[str, list[Answer]]:
        """Return what a previous run answered for a clip, by the SHA-256 of its content."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write to the same place; what has no name by now gets none."""


class ToStdout(Sink):
    """Answers go to stdout, at once."""

    def __init__(self, format_: str, style: Style, writers: Writers = WRITERS) -> None:
        self._writer = writers[format_](style, terminal.write)

    def _write(self, _clip: Input, items: Sequence[Any]) -> None:
        for item in items:
            self._writer.write(item)

    def close(self) -> None:  # noqa: D102
        self._writer.close()


class ToFile(ToStdout):
    """Answers go to a file that has its name only when it is complete; until then it is `FILE.partial`."""

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
        self._previous = merge_previous(self._file, format_, style) if resume else {}
        self._file.empty()
        self._writer = writers[format_](style, self._file.write)

    def reserve(self, clip: Input) -> None:  # noqa: D102
        self._protect([clip.path])

    def close(self) -> None:
        """Give the file its name."""
        self._writer.close()
        self._file.finish()

    def previous(self, clip: Input) -> Mapping[str, list[Answer]]:  # noqa: D102
        return self._previous.get(clip.path, {})

    def __exit__(self, *_: object) -> None:
        self._file.release()

    def _protect(self, files: Iterable[str | os.PathLike[str]]) -> None:
        protected.protect({"--output": (self._file.shown, self._file.partial, self._file.kept)}, files)


class ToFolder(Sink):
    """The answers of each clip go to a file of their own, in the tree of the inputs."""

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

    def reserve(self, clip: Input) -> None:
        """Decide where the answers of a clip go; ConfigError where that is taken."""
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

    def _write(self, clip: Input, items: Sequence[Any]) -> None:
        parts: list[str] = []
        writer = self._new_writer(self._style, parts.append)
        for item in items:
            writer.write(item)
        writer.close()
        with atomic_path(self._file(clip), durable=False) as temp:
            temp.write_bytes("".join(parts).encode("utf-8", errors="surrogateescape"))

    def previous(self, clip: Input) -> Mapping[str, list[Answer]]:  # noqa: D102
        target = self._file(clip)
        if not self._resume or not target.is_file():
            return {}
        return load_previous(lines_of(target), self._format, self._style).get(clip.path, {})

    def _file(self, clip: Input) -> Path:
        folder, own = os.path.split(clip.below)
        return self._root / folder / _fitting(own, ending(self._format))


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
        Load what runs before have left there.
    writers : mapping of str to type
        By format.
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
    """Take what `-o` says; None for stdout."""
    if output == "":
        raise ConfigError("--output is empty, expected a file or a folder", "Leave it out for stdout")
    return None if output in _STDOUT else output


def choose_format(asked: StrEnum | None, output: str | None, known: type[StrEnum]) -> str:
    """Choose the format: as asked, as the name of the output says, or as fits who reads.

    Raises
    ------
    ConfigError
        The name says none of those that are known.
    """
    if asked is not None:
        return asked.value
    if output is None:
        return "table" if terminal.on_terminal() else "jsonl"
    if is_folder(output):
        return "jsonl"
    suffixes = {f".{one}": one.value for one in known if one in _BY_SUFFIX}
    suffix = Path(output).suffix
    if suffix not in suffixes:
        expected = f"a name that ends in {', '.join(suffixes)}, or a folder"
        raise ConfigError(
            f"--output is {display_name(output)}, expected {expected}",
            "Or say the format with --format",
        )
    return suffixes[suffix]


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
