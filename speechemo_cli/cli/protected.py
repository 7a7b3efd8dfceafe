"""Nothing that a command reads is ever written over."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.errors import ConfigError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from speechemo_cli.corpus.clips import Collection

    Name = str | os.PathLike[str]
    Identities = dict[tuple[int, int], Name]

# Every command reads these where they are.
_CONFIG = ("speechemo.toml", "pyproject.toml")


def identities(files: Iterable[Name | None]) -> Identities:
    """Look up files by what they are, whatever they are called; folders and what is missing are left out."""
    found = {}
    for file in files:
        try:
            status = os.stat(file or "")
        except (OSError, ValueError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            found[status.st_dev, status.st_ino] = file or ""
    return found


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
    there = {option: identities(paths) for option, paths in outputs.items()}
    if any(there.values()):
        known = identities([*_CONFIG, os.environ.get("SPEECHEMO_CONFIG"), *read])
        for option, existing in there.items():
            refuse(option, existing, known)


def refuse(option: str, outputs: Identities, read: Identities) -> None:
    """Refuse one output that is read, as `identities` gives them."""
    for identity, path in outputs.items():
        if identity in read:
            raise ConfigError(
                f"{option} {display_name(path)} would write over {display_name(read[identity])},"
                " which is used here",
                f"Give another {option}",
            )


def files_of(corpus: Collection) -> Iterator[str]:
    """Yield what a collection is read from: manifests and clips."""
    for data, part in corpus.parts.items():
        yield data
        yield os.path.join(data, "manifest.csv")
        yield from (clip.path for clip in part)
