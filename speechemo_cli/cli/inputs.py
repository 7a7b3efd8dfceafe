"""What to read: files, folders, lists of paths, audio on stdin; and the labelled clips of DATA."""

from __future__ import annotations

import codecs
import os
import sys
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from speechemo_cli.cli import terminal
from speechemo_cli.cli.outputs import protect
from speechemo_cli.errors import AccessError, ConfigError, NoInputError
from speechemo_cli.files import access_error, display_name
from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Collection
    from speechemo_cli.features.dataset import Dataset
    from speechemo_cli.features.extraction import Extraction

    Outputs = Mapping[str, Iterable[Path | None]]
STDIN = "-"
_CHUNK_BYTES = 2**16
# No system opens a longer path. A list without an end to its lines would fill the memory.
_LONGEST_PATH_BYTES = 2**16
_SHOWN = 24  # labels, and speakers, of a corpus


class Input(NamedTuple):
    """A clip or a recording to read."""

    path: str  # as it is opened and shown; `-` for the audio on stdin
    below: str  # its name below the folder it was found in, for outputs that mirror the tree


class Inputs:
    """Every clip, folder by folder, as they are asked for; the first one is found now.

    `clips` are files, folders, or `-`. `files_from` is a list of paths, one a line or separated by NUL, or
    `-` for stdin; they are taken as they stand, so that a folder among them is an error of its own.
    `unreadable` counts the folders that could not be read until now; each has been warned about.
    ConfigError, NoInputError or AccessError where there is nothing to read.
    """

    def __init__(self, clips: list[str], files_from: str | None) -> None:
        if not clips and files_from is None:
            raise ConfigError(
                "no CLIP was given",
                "Name files or folders, - for audio on stdin, or a list with --files-from",
            )
        if clips.count(STDIN) + (files_from == STDIN) > 1:
            raise ConfigError("stdin can be one thing only", "Give - once, as CLIP or to --files-from")
        if STDIN in clips:
            stdin()
        self.unreadable = 0
        self._clips, self._files_from = clips, files_from
        self._refused: AccessError | None = None
        found = self._found()
        first = next(found, None)
        if first is None:
            sources = [*clips, *([files_from] if files_from else [])]
            raise self._refused or NoInputError(f"no audio in {', '.join(map(display_name, sources))}")
        self._left: Iterator[Input] = chain([first], found)

    def __iter__(self) -> Iterator[Input]:
        return self._left

    def require_one(self) -> None:
        """Refuse more than one clip."""
        first, *more = islice(self._left, 2)
        if more:
            raise ConfigError(
                "this holds one recording only, and there are more",
                "Give --output a folder, and leave out --plot",
            )
        self._left = iter([first])

    def is_one_file(self) -> bool:
        """Whether a single clip was named, and no folder or list."""
        return self._files_from is None and len(self._clips) == 1 and not os.path.isdir(self._clips[0])

    def count(self) -> int | None:
        """How many there are; None where telling would take a list away that is read once."""
        listed = self._files_from
        if listed is not None and (listed == STDIN or not os.path.isfile(listed)):
            return None
        return sum(1 for _ in self._found(tell=False))

    def _found(self, *, tell: bool = True) -> Iterator[Input]:
        for clip in self._clips:
            if clip != STDIN and os.path.isdir(clip):
                # The folder's own name, where others could hold the same names.
                yield from self._in_folder(clip, _own_name(clip) if len(self._clips) > 1 else "", tell=tell)
            else:
                yield Input(clip, _own_name(clip))
        if self._files_from is not None:
            for path in _listed(self._files_from):
                # On a list, unlike among the arguments, nothing but a file can be meant.
                yield Input(f"./{STDIN}" if path == STDIN else path, _own_name(path))

    def _in_folder(self, folder: str, prefix: str, *, tell: bool) -> Iterator[Input]:
        """Find the audio files of a folder; what is left out is told at the end."""
        from speechemo_cli.corpus.clips import NotAudio, iter_audio_files
        from speechemo_cli.corpus.known import SILENT, recognise

        passed_over, silent = NotAudio(), 0
        try:
            for path in iter_audio_files(folder, passed_over):
                known = recognise(path)
                if known is not None and known.left_out == SILENT:  # of RAVDESS, by its name
                    silent += 1
                else:
                    yield Input(path, str(Path(prefix, os.path.relpath(path, folder))))
        except AccessError as error:
            self._refused = error
            passed_over.unreadable.append(folder)
        if not tell:
            return
        if passed_over.other:
            left_out = counted(passed_over.other, "file")
            terminal.note(f"{display_name(folder)}: left out {left_out}: not audio, by the suffix")
        if silent:
            terminal.note(f"{display_name(folder)}: left out: {silent} {SILENT}")
        for inner in passed_over.unreadable:
            self.unreadable += 1
            terminal.warn(f"{display_name(inner)}: the folder cannot be read")


def stdin() -> BinaryIO:
    """Return the bytes of stdin; NoInputError where it is closed."""
    if sys.stdin is None:  # what Python makes of `<&-`
        raise NoInputError("stdin is closed")
    return sys.stdin.buffer


def _own_name(path: str) -> str:
    """Return the last part of a path; never one that leads elsewhere, as `..` and `/` would."""
    name = Path(path).name
    return name if name not in ("", "..") else Path(path).resolve().name or "root"


def _listed(source: str) -> Iterator[str]:
    """Read paths one after the other, as they arrive."""
    try:
        # Unbuffered: what is there is taken now, and stdin is not closed with it.
        with open(stdin().fileno() if source == STDIN else source, "rb", 0, closefd=source != STDIN) as file:
            yield from filter(None, _split(iter(lambda: file.read(_CHUNK_BYTES), b"")))
    except OSError as error:
        raise access_error("read", source, error) from error
    except ValueError as error:
        raise AccessError(f"cannot read {display_name(source)}: {error}") from None


def _split(chunks: Iterator[bytes]) -> Iterator[str]:
    """Cut at NULs where there are any in the first piece, else at the ends of lines."""
    first, rest, mark = next(chunks, b""), b"", b""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is UTF-16, expected the bytes of file names; save it as UTF-8")

    def path(line: bytes) -> str:
        return os.fsdecode(line if mark == b"\0" else line.removesuffix(b"\r"))

    for chunk in chain([first.removeprefix(codecs.BOM_UTF8)], chunks):
        mark = mark or (b"\0" if b"\0" in chunk else b"\n" if b"\n" in chunk else b"")
        rest += chunk
        if mark:
            *whole, rest = rest.split(mark)
            yield from map(path, whole)
        if len(rest) > _LONGEST_PATH_BYTES:
            raise ValueError(f"a line of more than {_LONGEST_PATH_BYTES} bytes is no path")
    yield path(rest)


# --- the labelled clips of DATA: found, shown, protected from being written over, and loaded


def load_data(
    config: Config,
    feature_set: str,
    others: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    *,
    outputs: Outputs,
    read: Iterable[Path | None],
) -> tuple[Collection, Dataset]:
    """Find the clips of DATA and load their features, and those of `others`; only `labels` are allowed.

    `outputs` and what is `read` are protected as `protect` does; the clips are read, too.
    """
    found = find(config, outputs=outputs, read=read)
    from speechemo_cli.features import dataset

    with terminal.progress("extracting", "clips") as update:
        data = dataset.load(found.clips, config, feature_set, labels, others, update)
    report_loaded(data)
    return found, data


def report_loaded(*data: Dataset) -> None:
    """Name the clips that failed or are odd, and those that are nearly the same recording."""
    for one in data:
        report_extraction(one.extraction)
    pairs = list(dict.fromkeys(pair for one in data for pair in one.near_copies))
    if pairs:
        names = (f"{one.clip.path} and {other.clip.path}" for one, other in pairs[:3])
        shown = "; ".join(map(display_name, names)) + (", ..." if len(pairs) > 3 else "")
        n = counted(len(pairs), "pair")
        terminal.warn(f"{n} of clips are nearly the same recording, encoded anew or trimmed: {shown}")


def find(
    config: Config, data: Sequence[str] | None = None, *, outputs: Outputs, read: Iterable[Path | None]
) -> Collection:
    """Find the clips of DATA, and show corpus by corpus their labels and speakers, and what was left out."""
    from speechemo_cli.corpus import ordered
    from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED
    from speechemo_cli.corpus.layouts import find_all

    found = find_all(data or config.data, config)
    for corpus, (labels, speakers) in found.counts().items():
        terminal.note(f"{display_name(corpus)}: {counted(labels.total(), 'clip')}")
        terminal.note(f"  {counted(len(labels), 'label')}: {_with_numbers(labels, ordered(labels))}")
        terminal.note(f"  {_speakers(speakers)}")
    for part in found.parts.values():
        for line in part.notes:
            terminal.note(line)
        for reason, n in part.skipped.items():
            example = part.examples.get(reason)
            line = f"left out: {n} {reason}" + (f", such as {display_name(example)}" if example else "")
            (terminal.warn if reason in (NO_LABEL, NOT_MATCHED) else terminal.note)(line)
        for folder in part.unreadable:
            terminal.warn(f"{display_name(folder)}: the folder cannot be read")
    manifests = [path for data in found.parts for path in (data, f"{data}/manifest.csv")]
    protect(outputs, chain(manifests, (clip.path for clip in found), read))
    return found


def _with_numbers(counts: Mapping[Any, int], names: Iterable[str]) -> str:
    """List names with their numbers of clips, those beyond a line or two by their number alone."""
    shown = [f"{display_name(name)} {counts[name]}" for name in names]
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)


def _speakers(counts: Counter[str | None]) -> str:
    names = sorted(name for name in counts if name is not None)
    if not names:
        return "speakers not known (--speaker-from REGEX or the column of a manifest tells them)"
    rest = f"; of {counted(counts[None], 'clip')} not known" if counts[None] else ""
    return f"{counted(len(names), 'speaker')}: {_with_numbers(counts, names)}{rest}"


def to_dict(found: Collection, extraction: Extraction) -> dict[str, Any]:
    """Return the same for JSON documents: `found`, and `skipped` and `failed` with the reasons."""
    from speechemo_cli.corpus import ordered

    return {
        "found": {
            corpus: {
                "clips": labels.total(),
                "labels": {label: labels[label] for label in ordered(labels)},
                "speakers": {name: speakers[name] for name in sorted(filter(None, speakers))},
                "unknown_speakers": speakers[None],
            }
            for corpus, (labels, speakers) in found.counts().items()
        },
        "skipped": found.skipped,
        "failed": [{"path": clip.path, "error": clip.error} for clip in extraction.failed],
    }


def exit_for(found: Collection, extraction: Extraction) -> None:
    """End as `terminal.exit_for` does, where clips failed, had no label, or cannot be reached."""
    terminal.exit_for(len(extraction.failed) + found.unusable, len(found) + found.unusable)


def report_extraction(extraction: Extraction) -> None:
    """Name every clip that failed or is odd, and every shard that was set aside."""
    for odd in extraction.quality_warnings:
        terminal.warn(f"{display_name(odd.path)}: {odd.warning}")
    for failure in extraction.failed:
        terminal.warn(f"{display_name(failure.path)}: {failure.error}")
    for shard in extraction.damaged:
        terminal.warn(f"damaged, set aside and computed anew: {shard}")
