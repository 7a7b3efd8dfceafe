"""Lists of recordings, as spreadsheets, Windows and Kaggle write them; and one to fill in."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from speechemo_cli.corpus import canonical
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import ConfigError, DataError, NoInputError
from speechemo_cli.files import access_error, atomic_path, display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

# What columns are called; the first name of each is the field of a clip.
_NAMES = (
    ("path", "file", "filename", "file_name", "filepath", "file_path", "wav", "audio", "audio_path", "clip"),
    ("label", "labels", "emotion", "emotions", "class"),
    ("speaker", "speaker_id", "speakerid", "spk", "actor", "actor_id"),
    ("corpus", "dataset"),
    ("gender", "sex"),
    ("intensity",),
    ("statement", "sentence"),
    ("repetition",),
    ("song",),
)
_FIELD_OF = {name: names[0] for names in _NAMES for name in names}
_GENDERS = {"m": "m", "male": "m", "man": "m", "f": "f", "female": "f", "w": "f", "woman": "f"}
_INTENSITIES = {"1": 1, "normal": 1, "2": 2, "strong": 2}
_SONG = dict.fromkeys(("0", "no", "false", "speech"), False) | dict.fromkeys(
    ("1", "yes", "true", "song"), True
)
# A column with a value that these refuse with KeyError or ValueError is a slice instead of a field.
_READ: dict[str, Callable[[str], Any]] = {
    "gender": lambda text: _GENDERS[text.lower()],
    "intensity": lambda text: _INTENSITIES[text.lower()],
    "statement": int,
    "repetition": int,
    "song": lambda text: _SONG[text.lower()],
}
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF8, "utf-8"))


class _Row(NamedTuple):
    line: int
    values: dict[str, str]


def read(file: str) -> tuple[list[Clip], list[str]]:
    """Read a manifest: its clips, and notes on what was not plain.

    A header, then a recording a row; `,` `;` `|` or tabs between values. Paths count from its folder.
    AccessError: it cannot be read. DataError: a column or a value is missing, doubled or broken, with the
    line. NoInputError: it lists nothing, or only recordings that are not there.
    """
    notes: list[str] = []
    try:
        with open_regular(file) as handle:
            content = handle.read()
    except OSError as error:
        raise access_error("read", file, error) from error
    shown = display_name(file)
    try:
        text, encoding = _decode(content)
        if encoding == "cp1252":
            example = next(line for line in text.splitlines() if not line.isascii())
            notes.append(f"not UTF-8, read as Windows-1252: {display_name(example.strip()[:60])}")
        columns, rows = _rows(text)
        if not rows:
            raise NoInputError(f"{shown} lists no clip")
        _require_values(rows)
        listed = [row.values["path"] for row in rows]
        find = partial(_find, os.path.dirname(file), encoding)
        absent = _absent_folder(listed, find)
        clips = _clips(rows, columns, [find(path.removeprefix(absent)) for path in listed], notes)
    except DataError as error:
        raise DataError(f"{shown}{error.message}", error.hint) from None
    if not any(os.path.exists(clip.path) for clip in clips):
        raise NoInputError(
            f"{shown} lists {len(clips)} recordings, and none is there;"
            f" the first would be {display_name(clips[0].path)}",
            "Paths count from the folder of the manifest",
        )
    if absent:
        notes.append(f"{display_name(absent)} is not there, the manifest's folder is taken for it")
    return clips, notes


def write_template(file: Path, clips: Iterable[tuple[str, str, str]]) -> None:
    """Write a manifest to fill in, of (path, label, speaker), where empty is not known.

    Paths are written as they count from its folder. ConfigError: the file exists. AccessError: it cannot be
    written.
    """
    if os.path.lexists(file):
        raise ConfigError(f"{display_name(file)} exists already, and stays as it is", "Give a new name")
    # With the mark, without which Excel takes it for Windows-1252.
    with (
        atomic_path(file) as temp,
        temp.open("w", encoding="utf-8-sig", errors="surrogateescape", newline="") as handle,
    ):
        writer = csv.writer(handle)
        writer.writerow(("path", "label", "speaker"))
        writer.writerows((os.path.relpath(path, file.parent), *rest) for path, *rest in clips)


def _decode(content: bytes) -> tuple[str, str]:
    """Return the text and its encoding; bytes in UTF-8 that are none stay, as file names may hold them."""
    mark, encoding = next((pair for pair in _MARKS if content.startswith(pair[0])), (b"", "utf-8"))
    body = content.removeprefix(mark)
    try:
        text = body.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
        broken = {c for c in text if "\udc80" <= c <= "\udcff"} if encoding == "utf-8" else set()
        if broken and not mark and all(c.isascii() or c in broken for c in text):
            text, encoding = body.decode("cp1252"), "cp1252"
    except UnicodeDecodeError as error:
        raise DataError(f": cannot be read as text: {error.reason}", "Save it as CSV UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f", line {line}: a NUL character", "Save it as CSV UTF-8")
    return text, encoding


def _rows(text: str) -> tuple[list[str], list[_Row]]:
    """Return the columns and the rows; those without any value are passed over."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    names = {mark: next(csv.reader([header], delimiter=mark, skipinitialspace=True), []) for mark in ",;\t|"}
    mark = max(names, key=lambda one: len(names[one]))
    columns: list[str] = []
    rows = []
    for line, values in _lines(text, mark):
        if not columns:
            columns = _columns(values)
            continue
        if len(values) > len(columns) and any(values[len(columns) :]):
            raise DataError(
                f", line {line}: {len(values)} values, and the header has {len(columns)}",
                f"Put a value that holds a {mark!r} in quotes",
            )
        values += [""] * (len(columns) - len(values))
        rows.append(_Row(line, {name: v for name, v in zip(columns, values, strict=False) if name}))
    for needed in ("path", "label"):
        if needed not in columns:
            found = display_name(", ".join(filter(None, columns))) or "nothing"
            raise DataError(f": no column {needed!r}, found {found}", "Expected path,label[,speaker]")
    return columns, rows


def _lines(text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each row's first line, and its values, trimmed."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values):
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        why = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise DataError(f", line {line}: not a CSV file: {why}") from None


def _columns(header: list[str]) -> list[str]:
    """Name the columns: a field of a clip, or as the file calls it."""
    plain = [re.sub(r"[\s-]+", "_", name.lower()) for name in header]
    columns = []
    for name, own in zip(plain, header, strict=True):
        field = _FIELD_OF.get(name, own)
        # `path` beside `filename`: the plain name is the field, the other one a further column.
        columns.append(own if field != name and field in plain else field)
    for name in filter(None, columns):
        if columns.count(name) > 1:
            both = " and ".join(own for own, column in zip(header, columns, strict=True) if column == name)
            raise DataError(
                f": two columns for the {display_name(name)}: {display_name(both)}",
                "Remove one, or give it another name",
            )
    return columns


def _require_values(rows: list[_Row]) -> None:
    for needed in ("label", "path"):
        lacking = [row.line for row in rows if not row.values[needed]]
        if len(lacking) == len(rows):
            raise DataError(f": the column {needed!r} is still empty", "Fill it in, a value for each row")
        if lacking:
            raise DataError(
                f", line {lacking[0]}: path or label is empty ({len(lacking)} such rows)",
                "Fill it in, or remove the row",
            )


def _clips(rows: list[_Row], columns: list[str], paths: list[str], notes: list[str]) -> list[Clip]:
    """Turn rows into clips; a recording that is listed again the same way counts once."""
    read_as = {}
    for name in _READ.keys() & columns:
        texts = {row.values[name] for row in rows} - {""}
        with suppress(KeyError, ValueError):  # a further column
            read_as[name] = {text: _READ[name](text) for text in texts}
    fields = {"", "path", "label", "speaker", "corpus", *read_as}
    further = [name for name in columns if name not in fields]
    clips: dict[str, tuple[int, Clip]] = {}
    for (line, values), path in zip(rows, paths, strict=True):
        if "/" in values.get("corpus", ""):
            raise DataError(f", line {line}: the name of a corpus holds a /", "Rename it")
        clip = Clip(
            path=path,
            label=canonical(values["label"]),
            speaker=values.get("speaker") or None,
            corpus=values.get("corpus", ""),
            extra=tuple((name, values[name]) for name in further if values[name]),
            **{name: known[values[name]] for name, known in read_as.items() if values[name]},
        )
        first, before = clips.setdefault(os.path.normpath(path), (line, clip))
        for name in ("label", "speaker", "corpus"):
            here, there = getattr(clip, name), getattr(before, name)
            if here != there:
                raise DataError(
                    f", line {line}: {display_name(values['path'])} has the {name}"
                    f" {display_name(here or 'unknown')}, in line {first} {display_name(there or 'unknown')}",
                    "Keep the row that is right",
                )
    if len(clips) < len(rows):
        notes.append(f"left out: {len(rows) - len(clips)} of {len(rows)} rows, which list a recording again")
    return [clip for _, clip in clips.values()]


def _absent_folder(listed: list[str], find: Callable[[str], str]) -> str:
    """Return the folder before the paths that is not here; empty where some are found as they are."""
    if any(os.path.exists(find(path)) for path in listed):
        return ""
    ends = (mark.end() for mark in re.finditer(r"[/\\]+", listed[0]))
    return next((listed[0][:end] for end in ends if os.path.exists(find(listed[0][end:]))), "")


def _find(folder: str, encoding: str, path: str) -> str:
    """Return the first spelling that is there, whatever system wrote it, else the path as it was written."""
    forms = [path, path.replace("\\", "/")]
    forms += [unicodedata.normalize(form, forms[1]) for form in ("NFC", "NFD")]
    if encoding == "cp1252":
        forms.append(os.fsdecode(path.encode("cp1252")))
    places = [os.path.join(folder, form) for form in forms]
    return next(filter(os.path.exists, places), places[0])
