"""Where answers go: stdout, a file, or a folder in the inputs' tree. Nothing that is read is written over."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechemo_cli import files
from speechemo_cli.cli import terminal
from speechemo_cli.cli.answers import load_previous, name
from speechemo_cli.errors import AccessError, ClipError, ConfigError
from speechemo_cli.files import access_error, atomic_path, display_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from enum import StrEnum
    from typing import Self, TextIO

    from speechemo_cli.cli.answers import ByChannel, Previous, Writer
    from speechemo_cli.cli.inputs import Input

    Name = str | os.PathLike[str]
    Identities = dict[tuple[int, int], Name]

# Formats of which a file's suffix says nothing.
_AS_TXT = ("label", "table", "audacity")
# The longest name that Linux, macOS and Windows give a file.
_NAME_BYTES = 255
# Every command reads these where they are.
_CONFIG = ("speechemo.toml", "pyproject.toml")


class Sink:
    """Takes the answers of one clip after the other, and writes them to stdout at once.

    `failed` of its `n` records are errors. `resume` loads what runs before have left at the output;
    `protect` are files not to write over, besides the clips. AccessError where it cannot be written,
    another process is writing it, or what is there cannot be read; ConfigError where it is to be protected.
    """

    failed = n = 0

    def __init__(
        self,
        output: str | None,
        format_: str,
        writer: Writer,
        *,
        resume: bool = False,
        protect: Iterable[Name | None] = (),
    ) -> None:
        self._format, self._writer, self._resume = format_, writer, resume
        self._begin(Path(output or ""), protect)

    def _begin(self, _output: Path, _protect: Iterable[Name | None]) -> None:
        self._emit(self._writer.begin())

    def _emit(self, text: str) -> None:
        terminal.write(text)

    def reserve(self, _clip: Input, /) -> Mapping[str, ByChannel]:
        """Take the place for the answers of a clip before it is read.

        Returns what a previous run answered for it, by the SHA-256 of its content and by channel.
        """
        return {}

    def write(self, clip: Input, items: Sequence[Any]) -> None:
        """Write the answers of a clip, and name what failed on stderr."""
        for item in items:
            if isinstance(item, ClipError):
                self.failed += 1
                terminal.warn(f"{name(item)}: {item.error}")
        self.n += len(items)
        self._write(clip, items)

    def _write(self, _clip: Input, items: Sequence[Any]) -> None:
        for item in items:
            self._emit(self._writer.write(item))

    def close(self) -> None:
        """Write what belongs after the last clip."""
        self._emit(self._writer.end())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write to the same place; what has no name by now gets none."""


class ToFile(Sink):
    """Answers go to FILE, which has its name only when it is complete; until then it is `FILE.partial`.

    One process at a time has that. With `resume`, what runs that were broken off left in it is kept as
    `FILE.partial~` while this run writes over it. All methods raise AccessError.
    """

    def _begin(self, path: Path, protect: Iterable[Name | None]) -> None:
        self._shown, self._path = path, Path(os.path.realpath(path))  # a link stays, its target is replaced
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        self._kept = self._path.with_name(f"{self._path.name}.partial~")
        files.require_writable(path.parent)
        with self._writing():
            files.refuse_devices(self._path)
        self._protect(protect)
        self._file = self._open()
        self._previous = self._load_previous() if self._resume else {}
        with self._writing():
            self._file.truncate(0)
        super()._begin(path, protect)

    def reserve(self, clip: Input) -> Mapping[str, ByChannel]:  # noqa: D102
        self._protect([clip.path])
        return self._previous.get(clip.path, {})

    def close(self) -> None:
        """Give the file its name. Where that fails, what was written is still in `FILE.partial`."""
        super().close()
        with self._writing():
            os.fsync(self._file.fileno())
            self._partial.replace(self._path)  # before another process may have what is under this name
            self._file.close()
            self._kept.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        """Let other processes have it, complete or not; one that is empty goes."""
        if not self._file.closed:
            try:
                if not os.fstat(self._file.fileno()).st_size:
                    self._partial.unlink()
                self._file.close()
            except OSError:
                pass  # what went wrong has been said already

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise access_error("write", self._shown, error) from error

    def _protect(self, read: Iterable[Name | None]) -> None:
        protect({"--output": (self._shown, self._partial, self._kept)}, read)

    def _open(self) -> TextIO:
        """Open `FILE.partial` as it is, for this process alone; the system ends that with the process."""
        try:
            while True:
                descriptor = files.open_locked(self._partial)
                file = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="")
                if _identities([self._partial]).keys() == {_identity(os.fstat(descriptor))}:
                    return file
                file.close()  # its writer has just given it its name
        except BlockingIOError:
            raise AccessError(
                f"{display_name(self._shown)} is being written by another speechemo",
                "Wait for it, or give another --output",
            ) from None
        except OSError as error:
            raise access_error("write", self._partial, error) from error

    def _load_previous(self) -> Previous:
        lines = [
            line
            for place in (self._path, self._kept, self._partial)
            if place.is_file()
            for line in _lines_of(place)
        ]
        if self._partial.stat().st_size:
            with atomic_path(self._kept) as temp:
                temp.write_bytes(os.fsencode("".join(lines)))
        return load_previous(lines, self._format, self._writer.style)

    def _emit(self, text: str) -> None:
        """Write now: a kill loses nothing that was written."""
        with self._writing():
            self._file.write(text)
            self._file.flush()


class ToFolder(Sink):
    """The answers of each clip go to a file of their own, in the tree of the inputs."""

    def _begin(self, root: Path, protect: Iterable[Name | None]) -> None:
        files.require_writable(root)
        self._root, self._protected = root, _identities(protect)
        self._taken: dict[Path, str] = {}

    def reserve(self, clip: Input) -> Mapping[str, ByChannel]:
        """Decide where the answers of a clip go; ConfigError where that is taken."""
        target = self._file(clip)
        for read in (self._protected, _identities([clip.path])):
            _refuse("--output", _identities([target]), read)
        before = self._taken.setdefault(target, clip.path)
        if before != clip.path:
            raise ConfigError(
                f"{display_name(before)} and {display_name(clip.path)} would both be answered in "
                f"{display_name(target)}",
                "Name the folder they are in instead of the files",
            )
        if not self._resume or not target.is_file():
            return {}
        return load_previous(_lines_of(target), self._format, self._writer.style).get(clip.path, {})

    def _write(self, clip: Input, items: Sequence[Any]) -> None:
        text = "".join([self._writer.begin(), *map(self._writer.write, items), self._writer.end()])
        with atomic_path(self._file(clip), durable=False) as temp:
            temp.write_bytes(text.encode("utf-8", errors="surrogateescape"))

    def close(self) -> None:
        """Every file is complete."""

    def _file(self, clip: Input) -> Path:
        folder, own = os.path.split(clip.below)
        return self._root / folder / _fitting(own, ".txt" if self._format in _AS_TXT else f".{self._format}")


def sink(output: str | None, *arguments: Any, **options: Any) -> Sink:
    """Return where answers go: stdout without `output`, else a file or a folder. See `Sink`."""
    kind = Sink if output is None else ToFolder if is_folder(output) else ToFile
    return kind(output, *arguments, **options)


def choose(asked: StrEnum | None, output: str | None, known: type[StrEnum]) -> tuple[str | None, str]:
    """Take what `-o` says, None for stdout; and choose the format.

    It is that asked for, or as the name of the output says, or as fits who reads. ConfigError where the
    name says none of those that are known.
    """
    if output == "":
        raise ConfigError("--output is empty, expected a file or a folder", "Leave it out for stdout")
    if output in ("-", "/dev/stdout"):
        output = None
    if asked is not None:
        return output, asked.value
    if output is None:
        return None, "table" if terminal.on_terminal() else "jsonl"
    suffix = Path(output).suffix
    suffixes = {f".{one}": one.value for one in known if one not in _AS_TXT}
    if suffix not in suffixes and not is_folder(output):
        raise ConfigError(
            f"--output is {display_name(output)}, expected a name that ends in {', '.join(suffixes)},"
            " or a folder",
            "Or say the format with --format",
        )
    return output, "jsonl" if is_folder(output) else suffixes[suffix]


def is_folder(output: str) -> bool:
    """Whether `-o` names a folder: there is one, or the name has no suffix, or ends in a slash."""
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return True
    return not Path(output).suffix and not os.path.exists(output)


def _fitting(name: str, suffix: str) -> str:
    """Add a suffix to a name; the end of one that gets too long becomes a hash of the whole."""
    content = os.fsencode(name)
    if len(content) + len(suffix) <= _NAME_BYTES:
        return f"{name}{suffix}"
    mark = f"~{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    return f"{content[: _NAME_BYTES - len(mark)].decode(errors='ignore')}{mark}"


def _lines_of(path: Path) -> list[str]:
    """Read whole lines; one that was broken off is none."""
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise access_error("read", path, error) from error
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def protect(outputs: Mapping[str, Iterable[Path | None]], read: Iterable[Name | None]) -> None:
    """Refuse outputs that are one of the files that are read, or the same file twice.

    Outputs are by option; None where one was not given. What is read is not looked at where no output is
    there yet.
    """
    taken: dict[str, str] = {}
    for option, paths in outputs.items():
        for path in filter(None, paths):
            before = taken.setdefault(os.path.realpath(path), option)
            if before != option:
                raise ConfigError(f"{before} and {option} would write over each other: {display_name(path)}")
    there = {option: _identities(paths) for option, paths in outputs.items()}
    if any(there.values()):
        known = _identities([*_CONFIG, os.environ.get("SPEECHEMO_CONFIG"), *read])
        for option, existing in there.items():
            _refuse(option, existing, known)


def _identities(paths: Iterable[Name | None]) -> Identities:
    """Look up files by what they are, whatever they are called; folders and what is missing are left out."""
    found = {}
    for path in (one for one in paths if one):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            found[_identity(status)] = path
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _refuse(option: str, outputs: Identities, read: Identities) -> None:
    for identity, path in outputs.items():
        if identity in read:
            raise ConfigError(
                f"{option} {display_name(path)} would write over {display_name(read[identity])},"
                " which is used here",
                f"Give another {option}",
            )
